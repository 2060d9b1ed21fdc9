"""Where the master key comes from, what is refused, and that it never shows."""

import base64
import copy
import json
import logging
import multiprocessing
import multiprocessing.synchronize
import os
import pickle
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring
from keyring.errors import KeyringLocked
from pydantic import SecretStr

from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import (
    KEY_BYTES,
    MasterKey,
    MasterKeyError,
    load_master_key,
    master_key_path,
)

CANARY = bytes(range(100, 100 + KEY_BYTES))
CANARY_TEXT = base64.b64encode(CANARY).decode()


def settings(tmp_path: Path, **given: object) -> Settings:
    return Settings.model_validate({"state_dir": tmp_path / "state", **given})


def write_key(path: Path, mode: int = 0o600, text: str = CANARY_TEXT + "\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


class KeptInMemory(KeyringBackend):
    """A keyring backend whose store is a dictionary."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str], str] = {}
        self.locked = False
        self.waits_for = Event()
        self.waits_for.set()

    def get_password(self, service: str, username: str) -> str | None:
        self.waits_for.wait()
        if self.locked:
            raise KeyringLocked(CANARY_TEXT)
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def memory_keyring() -> Iterator[KeptInMemory]:
    before = keyring.get_keyring()
    backend = KeptInMemory()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


def test_the_environment_gives_the_key(tmp_path: Path) -> None:
    key = load_master_key(settings(tmp_path, master_key=CANARY_TEXT))
    assert key == MasterKey(CANARY)


def test_url_safe_base64_and_blanks_around_it_are_read(tmp_path: Path) -> None:
    raw = b"\xfb\xff\xfe" * 3 + CANARY[:23]
    text = f"  {base64.urlsafe_b64encode(raw).decode()}\n"
    assert "_" in text
    assert load_master_key(settings(tmp_path, master_key=text)) == MasterKey(raw)


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    write_key(tmp_path / "state" / "master.key", text=base64.b64encode(os.urandom(32)).decode())
    assert load_master_key(settings(tmp_path, master_key=CANARY_TEXT)) == MasterKey(CANARY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("hunter2-hunter2-hunter2", "is not 32 bytes in base64"),
        (CANARY_TEXT[:-4], "is not 32 bytes in base64"),
        (CANARY_TEXT + "AAAA", "is not 32 bytes in base64"),
        (base64.b64encode(bytes(32)).decode(), "is a placeholder"),
    ],
)
def test_an_unusable_key_is_refused_without_being_shown(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(MasterKeyError, match=says) as caught:
        load_master_key(settings(tmp_path, master_key=text))
    assert "openssl rand -base64 32" in str(caught.value)
    assert not text.strip() or text.strip() not in shown_with_locals(caught.value)


def test_t28_without_a_key_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MasterKeyError, match=r"no master key.*openssl rand"):
        load_master_key(settings(tmp_path))
    assert not (tmp_path / "state").exists()


def test_t28_no_key_is_made_silently_beside_a_database_elsewhere(tmp_path: Path) -> None:
    elsewhere = settings(tmp_path, database_url="postgresql://owner@db.example/fleetprompt")
    with pytest.raises(MasterKeyError, match="no master key"):
        load_master_key(elsewhere, create=True)
    asked_for = elsewhere.model_copy(update={"master_key_source": "file"})
    assert load_master_key(asked_for, create=True) == load_master_key(elsewhere)


def test_t28_a_key_inside_the_databases_data_folder_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "pgdata"
    data.mkdir()
    (data / "PG_VERSION").write_text("18\n")
    inside = settings(tmp_path, master_key_file=data / "keys" / "master.key")
    with pytest.raises(MasterKeyError, match="inside the database's data folder"):
        load_master_key(inside, create=True)


def test_a_new_file_is_private_and_read_again(tmp_path: Path) -> None:
    asked = settings(tmp_path)
    made = load_master_key(asked, create=True)
    path = master_key_path(asked)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert len(base64.b64decode(path.read_text())) == KEY_BYTES
    assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]
    assert load_master_key(asked) == made
    assert load_master_key(asked, create=True) == made


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = write_key(tmp_path / "k", mode)
    with pytest.raises(MasterKeyError, match=rf"mode {mode:04o}.*chmod 600") as caught:
        load_master_key(settings(tmp_path, master_key_file=path), create=True)
    assert CANARY_TEXT not in shown_with_locals(caught.value)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_key(tmp_path / "k")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(MasterKeyError, match=r"belongs to user id .*chown"):
        load_master_key(settings(tmp_path, master_key_file=path))


def test_a_folder_or_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(MasterKeyError, match="not a regular file"):
            load_master_key(settings(tmp_path, master_key_file=tmp_path / name))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MasterKeyError, match=r"cannot be (read|made).*"):
        load_master_key(settings(tmp_path, master_key_file=tmp_path / "file" / "k"), create=True)


def _create_and_tell(
    state_dir: Path, start: multiprocessing.synchronize.Barrier, told: Path
) -> None:
    start.wait(timeout=20)
    told.write_text(load_master_key(Settings(state_dir=state_dir), create=True).key_id)


def test_processes_that_create_at_once_end_with_one_key(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(5):
        state_dir = tmp_path / str(attempt)
        start = context.Barrier(4)
        told = [tmp_path / f"{attempt}-{number}" for number in range(4)]
        processes = [
            context.Process(target=_create_and_tell, args=(state_dir, start, file)) for file in told
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=20)
        made = load_master_key(Settings(state_dir=state_dir))
        assert {file.read_text() for file in told} == {made.key_id}
        assert [entry.name for entry in state_dir.iterdir()] == ["master.key"]


def test_the_keyring_gives_and_keeps_the_key(tmp_path: Path, memory_keyring: KeptInMemory) -> None:
    asked = settings(tmp_path, master_key_source="keyring")
    with pytest.raises(MasterKeyError, match="keyring set fleetprompt master-key"):
        load_master_key(asked)
    made = load_master_key(asked, create=True)
    assert list(memory_keyring.entries) == [("fleetprompt", "master-key")]
    assert load_master_key(asked, create=True) == made == load_master_key(asked)
    assert not (tmp_path / "state" / "master.key").exists()


def test_processes_that_create_at_once_in_a_keyring_end_with_one_key(
    tmp_path: Path, memory_keyring: KeptInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = memory_keyring.set_password

    def store_slowly(service: str, username: str, password: str) -> None:
        time.sleep(0.05)
        store(service, username, password)

    monkeypatch.setattr(memory_keyring, "set_password", store_slowly)
    asked = settings(tmp_path, master_key_source="keyring")
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: load_master_key(asked, create=True), range(4)))
    assert set(made) == {load_master_key(asked)}


def test_a_locked_keyring_is_told_without_its_own_words(
    tmp_path: Path, memory_keyring: KeptInMemory
) -> None:
    memory_keyring.locked = True
    with pytest.raises(MasterKeyError, match=r"refused .*KeyringLocked.* Unlock it") as caught:
        load_master_key(settings(tmp_path, master_key_source="keyring"))
    assert CANARY_TEXT not in "".join(traceback.format_exception(caught.value))


def test_a_keyring_that_waits_for_a_password_is_not_waited_for(
    tmp_path: Path, memory_keyring: KeptInMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetprompt.vault.master_key.KEYRING_SECONDS", 0.05)
    memory_keyring.waits_for.clear()
    with pytest.raises(MasterKeyError, match="did not answer"):
        load_master_key(settings(tmp_path, master_key_source="keyring"), create=True)
    memory_keyring.waits_for.set()
    assert not memory_keyring.entries


@pytest.mark.usefixtures("memory_keyring")
def test_a_keyring_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    keyring.set_keyring(NoKeyring())  # type: ignore[no-untyped-call]
    with pytest.raises(MasterKeyError, match="no keyring that keeps a secret"):
        load_master_key(settings(tmp_path, master_key_source="keyring"), create=True)


def test_the_source_env_never_looks_at_the_file(tmp_path: Path) -> None:
    write_key(tmp_path / "state" / "master.key")
    with pytest.raises(MasterKeyError, match="FLEETPROMPT_MASTER_KEY is not set"):
        load_master_key(settings(tmp_path, master_key_source="env"), create=True)


def test_subkeys_are_fixed_for_a_key_and_purpose_and_differ_otherwise() -> None:
    # The vector is OpenSSL's, from the same key, salt and info (`openssl kdf … HKDF`).
    # It must never change: what is stored depends on it.
    key = MasterKey(CANARY)
    assert key.subkey("api-key-hash").hex() == VECTOR
    purposes = ("api-key-hash", "database-login", "data-key-wrap", "key-id")
    subkeys = {k.subkey(p) for k in (key, MasterKey(CANARY[::-1])) for p in purposes}
    assert len(subkeys) == 2 * len(purposes)
    assert all(len(subkey) == 32 for subkey in subkeys)
    assert CANARY not in subkeys


VECTOR = "65452f32310cb5c331e3055c71e2abcf44dea2dac4d9cb956446feffe746e612"


@pytest.mark.parametrize("purpose", ["", "Api", "api key", "api/key", "-a", "ä", "a" * 64])
def test_a_purpose_outside_the_pattern_is_refused(purpose: str) -> None:
    with pytest.raises(ValueError, match="purpose"):
        MasterKey(CANARY).subkey(purpose)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(MasterKeyError, match="has 32 bytes"):
        MasterKey(CANARY[:-1])


def test_t25_the_key_never_shows(caplog: pytest.LogCaptureFixture) -> None:
    key = MasterKey(CANARY)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("fleetprompt").debug("loaded %s %r", key, key, extra={"key": key})
    shown = [repr(key), str(key), f"{key}", json.dumps({"key": key}, default=str), caplog.text]
    for text in shown:
        assert CANARY.hex() not in text
        assert CANARY_TEXT not in text
        assert repr(CANARY) not in text
        assert key.key_id in text
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not pickled or copied"):
            attempt(key)
    with pytest.raises(TypeError):
        json.dumps(key)
    assert not hasattr(key, "__dict__")


def test_the_settings_do_not_show_the_key() -> None:
    assert CANARY_TEXT not in repr(Settings(master_key=SecretStr(CANARY_TEXT)))


def shown_with_locals(error: BaseException) -> str:
    """The error as tools print it that show the local variables of our frames."""
    ours = [
        frame.tb_frame.f_locals.items()
        for frame in _frames(error)
        if "vault" in Path(frame.tb_frame.f_code.co_filename).parts
        and "tests" not in Path(frame.tb_frame.f_code.co_filename).parts
    ]
    return "".join(traceback.format_exception(error)) + repr([list(items) for items in ours])


def _frames(error: BaseException) -> Iterator[TracebackType]:
    at = error.__traceback__
    while at is not None:
        yield at
        at = at.tb_next
