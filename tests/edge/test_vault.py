"""Secrets are kept in safe places only, and nowhere else."""

import base64
import json
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.backends.null
import pytest
from fleetprompt_edge import vault
from fleetprompt_edge.errors import SecretError
from fleetprompt_edge.profile import Profile, Secrets
from fleetprompt_edge.vault import ring
from fleetprompt_edge.vault.credentials import CredentialVault
from fleetprompt_edge.vault.file import FileVault, new_key
from fleetprompt_edge.vault.ring import RingVault, real_backend

from tests.edge.dovecot import PASSWORD
from tests.edge.in_process import alone, command
from tests.edge.ingesting import CONNECTOR, profile

CANARY = "canary-secret-4471"
NULL = keyring.backends.null.Keyring()  # type: ignore[no-untyped-call]
FAILING = keyring.backends.fail.Keyring()  # type: ignore[no-untyped-call]


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A backend as good as a real one."""

    priority = 5

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class Forgetful(MemoryKeyring):
    """Takes everything and gives nothing back."""

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class Locked(MemoryKeyring):
    """Waits for somebody to type a password."""

    def get_password(self, service: str, username: str) -> str | None:
        time.sleep(30)
        return None


@pytest.fixture(autouse=True)
def _no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CREDENTIALS_DIRECTORY", "FLEETPROMPT_EDGE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    keyring.set_keyring(FAILING)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "key"
    new_key(path)
    return path


def with_secrets(**options: str) -> Profile:
    return replace(profile(), secrets=Secrets(**options))


def test_a_real_keyring_is_used_and_read_back(tmp_path: Path) -> None:
    backend = MemoryKeyring()
    keyring.set_keyring(backend)
    (place,) = vault.vaults(with_secrets(), tmp_path)
    place.put(vault.API_KEY, CANARY)
    assert backend.kept == {(f"fleetprompt-edge:{CONNECTOR}", "api-key"): CANARY}
    assert vault.read(with_secrets(), tmp_path, vault.API_KEY) == CANARY
    assert place.remove(vault.API_KEY)
    assert not place.remove(vault.API_KEY)


def test_trap_43_a_keyring_that_keeps_nothing_or_in_clear_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = types.new_class("PlaintextKeyring", (MemoryKeyring,))
    plain.__module__ = "keyrings.alt.file"
    low = types.new_class("Low", (MemoryKeyring,), exec_body=lambda body: body.update(priority=0.5))
    for backend in (NULL, FAILING, plain(), low()):
        keyring.set_keyring(backend)
        assert real_backend() is None, backend
        with pytest.raises(SecretError):
            RingVault(CONNECTOR)
    with pytest.raises(SecretError, match="no safe place") as caught:
        vault.vaults(with_secrets(), tmp_path)
    assert "new-key" in caught.value.remedy


def test_trap_43_a_keyring_that_gives_nothing_back_is_noticed() -> None:
    keyring.set_keyring(Forgetful())
    with pytest.raises(SecretError, match="does not give it back") as caught:
        RingVault(CONNECTOR).put("api-key", CANARY)
    assert CANARY not in str(caught.value)


def test_trap_43_a_locked_keyring_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "LIMIT", 0.2)
    keyring.set_keyring(Locked())
    began = time.monotonic()
    with pytest.raises(SecretError, match="locked"):
        RingVault(CONNECTOR).get("api-key")
    assert time.monotonic() - began < 10


def test_what_was_copied_wrongly_is_not_stored_and_not_repeated(tmp_path: Path) -> None:
    home = alone(tmp_path / "home")
    for name, given in (
        ("api-key", "fp_conn_…"),
        ("api-key", f"fp_user_{'a' * 43}"),
        ("bridge-password", "pässwörd"),
    ):
        code, told = command(home.profile, "secrets", "set", name, given=given + "\n")
        assert (code, told["error"]["code"]) == (2, "secret")
        assert given not in json.dumps(told, ensure_ascii=False)
    kept = FileVault(home.state, home.key_file)
    assert [kept.get(name) for name in ("bridge-password", "api-key")] == [PASSWORD, "canary-key"]


def test_systemd_credentials_are_read_and_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "api-key").write_text(f"{CANARY}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert vault.read(with_secrets(), tmp_path / "state", vault.API_KEY) == CANARY
    with pytest.raises(SecretError, match="is not there"):
        vault.read(with_secrets(store="systemd"), tmp_path / "state", vault.BRIDGE_PASSWORD)
    with pytest.raises(SecretError, match="administrator"):
        CredentialVault(tmp_path).put("api-key", CANARY)


def test_the_file_holds_nothing_in_clear_and_opens_with_its_key_only(
    tmp_path: Path, key_file: Path
) -> None:
    state = tmp_path / "state"
    kept = FileVault(state, key_file)
    kept.put("api-key", CANARY)
    kept.put("bridge-password", "other")
    assert kept.get("api-key") == CANARY
    path = state / "secrets.enc"
    assert CANARY.encode() not in path.read_bytes()
    assert base64.b64encode(CANARY.encode()).rstrip(b"=") not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    # One secret is not another: each is bound to its name.
    path.write_text(path.read_text().replace("api-key", "x").replace("bridge-password", "api-key"))
    with pytest.raises(SecretError, match="cannot be decrypted"):
        kept.get("api-key")
    another = tmp_path / "another"
    new_key(another)
    with pytest.raises(SecretError, match="cannot be decrypted"):
        FileVault(state, another).get("x")


def test_a_key_beside_the_file_or_open_to_others_is_refused(tmp_path: Path, key_file: Path) -> None:
    state = tmp_path / "state"
    new_key(state / "key")
    with pytest.raises(SecretError, match="beside what it encrypts"):
        FileVault(state, state / "key").put("api-key", CANARY)
    key_file.chmod(0o644)
    with pytest.raises(SecretError, match="Others can read"):
        FileVault(state, key_file).put("api-key", CANARY)
    key_file.chmod(0o600)
    key_file.write_text("c2hvcnQ=")
    with pytest.raises(SecretError, match="holds no key"):
        FileVault(state, key_file).put("api-key", CANARY)
    with pytest.raises(SecretError, match="no key"):
        FileVault(state, None).put("api-key", CANARY)
    assert not (state / "secrets.enc").exists()
    with pytest.raises(SecretError, match="cannot be written"):
        new_key(key_file)


def test_without_cryptography_it_says_so(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(SecretError, match="cryptography"):
        FileVault(tmp_path / "state", key_file).put("api-key", CANARY)
