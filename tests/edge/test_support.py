"""The support bundle: what support needs is in it, and nothing that is planted to be left out."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fleetprompt_edge import log
from fleetprompt_edge.store import Store

from tests.edge.connecting import Customer
from tests.edge.dovecot import PASSWORD, USER
from tests.edge.in_process import alone, command, without_keyring

CANARIES = (
    PASSWORD,
    "canary-key",
    USER,
    "ada.lovelace@example.org",
    "Müller GmbH",
    "canary-subject",
    "canary-lawyer",
    "canary-bank",
    "fp_conn_",
    "hooks/",
)


@pytest.fixture
def home(tmp_path: Path) -> Customer:
    """A customer with private names everywhere: profile, logs, what is waiting, what was refused."""
    without_keyring()
    made = alone(
        tmp_path / "home",
        mailbox__folders=("INBOX", "Folders/Müller GmbH", "\\Archive"),
        mailbox__exclude_folders=("Folders/canary-lawyer*",),
        mailbox__exclude_senders=("@canary-bank.example",),
        mailbox__processed_labels=("Labels/Müller GmbH done",),
        sending__allowed_from_addresses=("ada.lovelace@example.org",),
    )
    with Store(made.state) as store, store.transaction():
        store.queue.put("email_in:1", "email.inbound.received", '{"subject": "canary-subject"}', 1)
        store.queue.put("email_in:2", "email.inbound.received", "{}", 1)
        store.queue.put("email_in:ada.lovelace@example.org", "connector.error", "{}", 1)
        detail = "/data/from ada.lovelace@example.org has token=fp_conn_" + "a" * 43
        store.queue.bury(3, 1, "validation-failed", detail)
        text = json.dumps(
            {
                "place": "folder:Folders/Müller GmbH",
                "code": "folder_gone",
                "message": "The folder 'Folders/Müller GmbH' is not there.",
                "remedy": "",
            }
        )
        store.notes.put("problem:folder:Folders/Müller GmbH", text)
    kept = (log.logger.handlers[:], log.logger.propagate, log.logger.level)
    # As a connector that knows no secret: the bundle must not rely on the log's own masking.
    log.start("x", (), debug=True, stream=io.StringIO(), folder=made.state)
    log.logger.info(f"login {USER} {PASSWORD}", extra={"Müller GmbH": ["canary-key", {USER: 1}]})
    log.logger.warning("posting to https://chat.example/hooks/abcdefgh12345678")
    for one in log.logger.handlers:
        one.close()
    log.logger.handlers[:], log.logger.propagate = kept[:2]
    log.logger.setLevel(kept[2])
    with (made.state / "connector.log").open("a") as file:
        file.write(f'{{"cut off": "{PASSWORD}')
    return made


def unpacked(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name.rpartition("/")[2]: archive.read(name).decode() for name in archive.namelist()}


def test_trap_41_the_bundle_has_what_helps_and_no_planted_secret_or_address(home: Customer) -> None:
    path = home.folder / "bundle.zip"
    code, told = command(home.profile, "support-bundle", "--output", str(path))
    assert (code, told["path"]) == (0, str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    parts = unpacked(path)
    everything = "\n".join(parts.values())
    for canary in CANARIES:
        assert canary not in everything, canary
        assert canary.encode() not in path.read_bytes()
    found: dict[str, Any] = {
        name: json.loads(text) for name, text in parts.items() if name.endswith("json")
    }
    config = found["config.json"]
    assert config["bridge.imap.port"] == 9
    assert config["sending.allowed_from_addresses"] == 1
    folders = config["mailbox.folders"]
    assert (folders[0], folders[2]) == ("INBOX", "\\Archive")
    assert "[folder " in folders[1]
    states = {one["name"]: one["state"] for one in found["checks.json"]}
    assert states["bridge port"] == "bad"
    assert found["status.json"]["problems"][-1]["code"] == "dead_letters"
    assert found["queue.json"]["waiting"] == {"email.inbound.received": 2}
    (refused,) = found["queue.json"]["refused"]
    assert (refused["type"], refused["problem"]) == ("connector.error", "validation-failed")
    assert found["versions.json"]["libraries"]["imapclient"]
    lines = [json.loads(line) for line in parts["log.jsonl"].splitlines()]
    assert [line["message"] for line in lines] == [
        "login [address] [redacted]",
        "posting to [redacted]",
    ]
    assert "Read it before you give it away" in parts["README.txt"]


def test_a_bundle_is_never_written_over_another_file(home: Customer) -> None:
    code, told = command(home.profile, "support-bundle", "--output", str(home.profile))
    assert code == 2
    assert "cannot be written" in told["error"]["message"]
    assert home.profile.read_text().startswith("#")


def test_a_bundle_can_be_had_when_nothing_works(home: Customer) -> None:
    """Neither the key of the secrets nor the database: what is in the way is in the bundle."""
    home.key_file.unlink()
    (home.state / "connector.sqlite3").write_bytes(b"\xff" * 8192)
    path = home.folder / "bundle.zip"
    assert command(home.profile, "support-bundle", "--output", str(path))[0] == 0
    parts = unpacked(path)
    assert "damaged" in json.loads(parts["status.json"])["missing"]
    assert json.loads(parts["versions.json"])["fleetprompt-edge"]


def test_the_log_file_is_bounded_and_a_full_disk_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 32: what cannot be logged is left out; the work goes on."""
    monkeypatch.setattr(log, "_LOG_BYTES", 4_000)
    kept = (log.logger.handlers[:], log.logger.propagate, log.logger.level)
    log.start("x", (), debug=False, stream=io.StringIO(), folder=tmp_path)
    try:
        for number in range(200):
            log.logger.info("line %d", number)
        sizes = [one.stat().st_size for one in tmp_path.glob("connector.log*")]
        assert len(sizes) == 2
        assert max(sizes) <= 4_000
        assert json.loads(log.newest_lines(tmp_path, 1)[0])["message"] == "line 199"
        file = log.logger.handlers[1]
        assert isinstance(file, log.LogFile)
        file.close()
        monkeypatch.setattr(file, "baseFilename", "/dev/full")
        log.logger.info("nobody reads this")
    finally:
        for one in log.logger.handlers:
            one.close()
        log.logger.handlers[:], log.logger.propagate = kept[:2]
        log.logger.setLevel(kept[2])
