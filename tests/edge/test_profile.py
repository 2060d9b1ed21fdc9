"""Every option of a profile: what it takes, what is said when it does not fit."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fleetprompt_edge.profile import every_option
from fleetprompt_edge.reading import ProfileError, load
from fleetprompt_edge.toml_text import effective, flat, new_profile
from hypothesis import given
from hypothesis import strategies as st

CONNECTOR = "6ff1c4f6-8c4f-4f0e-9a7e-0d7c3f6f9a01"
CANARY = "canary-1f77a0"
REQUIRED = {
    "connector_id": CONNECTOR,
    "fleetprompt.base_url": "https://fleetprompt.example",
    "bridge.username": "me@proton.me",
}


def profile_file(folder: Path, text: str) -> Path:
    path = folder / "profile.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def with_options(folder: Path, options: Mapping[str, Any]) -> Path:
    return profile_file(folder, new_profile(REQUIRED | dict(options)))


def problems_of(path: Path) -> dict[str, str]:
    with pytest.raises(ProfileError) as caught:
        load(path)
    return dict(caught.value.problems)


def test_a_new_profile_shows_every_option_and_reads_as_its_defaults(tmp_path: Path) -> None:
    text = new_profile(REQUIRED)
    profile, set_keys = load(profile_file(tmp_path, text))
    assert set_keys == set(REQUIRED)
    defaults = {key: one.default for key, one in every_option().items() if key not in REQUIRED}
    assert flat(profile) == REQUIRED | defaults
    lines = [line.lstrip("# ") for line in text.splitlines()]
    for key in every_option():
        assert any(line.startswith(f"{key.rpartition('.')[2]} = ") for line in lines), key


def test_the_comments_of_a_new_profile_are_toml_once_uncommented(tmp_path: Path) -> None:
    lines = new_profile(REQUIRED).splitlines()
    names = {key.rpartition(".")[2] for key in every_option()}
    uncommented = [
        line.removeprefix("# ")
        for line in lines
        if not line.startswith("# ") or line[2:].split(" = ")[0] in names
    ]
    text = "\n".join(line for line in uncommented if not line.endswith('"…"'))
    profile, set_keys = load(profile_file(tmp_path, text))
    without_default = {key for key, one in every_option().items() if one.default is None}
    assert set_keys == set(every_option()) - without_default
    assert flat(profile) == flat(load(profile_file(tmp_path, new_profile(REQUIRED)))[0])


def test_every_default_passes_its_own_check() -> None:
    for key, one in every_option().items():
        if key in REQUIRED or one.default is None:
            continue
        default = list(one.default) if isinstance(one.default, tuple) else one.default
        assert one.metadata["read"](default) == one.default, key


def test_nothing_leaves_beyond_the_minimum_by_default(tmp_path: Path) -> None:
    values = flat(load(with_options(tmp_path, {}))[0])
    assert values["privacy.send_body"] is False
    assert values["privacy.attachment_mode"] == "metadata_only"
    assert values["sending.allowed_from_addresses"] == ()
    assert set(values["privacy.send_headers"]) == {"From", "To", "Subject", "Date", "Message-ID"}


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("fleetprompt.base_url", "https://fleetprompt.example:8443/tenant/"),
        ("fleetprompt.base_url", "http://127.0.0.1:8000"),
        ("fleetprompt.organization_id", "0198C0DE-0000-7000-8000-000000000000"),
        ("device_id", CONNECTOR),
        ("bridge.imap.host", "bridge.lan"),
        ("bridge.imap.host", "::1"),
        ("bridge.imap.port", 1144),
        ("bridge.imap.tls", "implicit"),
        ("bridge.smtp.port", 65535),
        ("bridge.smtp.timeout_seconds", 121),
        ("mailbox.folders", ("INBOX", "Folders/Ärger & Lob", 'a "b" \\ c')),
        ("mailbox.processed_labels", ("Labels/Done",)),
        ("mailbox.exclude_senders", ("news@example.org", "@ads.example.org")),
        ("mailbox.poll_interval_seconds", 20),
        ("mailbox.idle", False),
        ("privacy.send_body_to_organization", CONNECTOR),
        ("privacy.body_max_characters", 30_000),
        ("bridge.certificate_sha256", ":".join(["AB"] * 32)),
        ("state_dir", "/var/lib/fleetprompt-edge"),
        ("secrets.store", "systemd"),
        ("secrets.key_file", "/etc/fleetprompt-edge.key"),
        ("health.heartbeat_interval_seconds", 10),
        ("limits.max_queue_bytes", 65_536),
        ("privacy.send_snippet", False),
        ("privacy.snippet_max_characters", 2000),
        ("privacy.send_headers", ()),
        ("privacy.attachment_mode", "none"),
        ("privacy.hash_addresses", True),
        ("sending.allowed_from_addresses", ("support+eu@example.org",)),
        ("limits.max_messages_per_minute", 1),
        ("limits.max_payload_size_bytes", 4096),
    ],
)
def test_a_fitting_value_is_taken(tmp_path: Path, key: str, good: Any) -> None:
    values = flat(load(with_options(tmp_path, {key: good}))[0])
    if key == "fleetprompt.base_url":
        assert values[key] == good.rstrip("/")
    elif key == "fleetprompt.organization_id":
        assert values[key] == good.lower()
    else:
        assert values[key] == good


@pytest.mark.parametrize(
    ("key", "bad", "says"),
    [
        ("connector_id", "laptop", "UUID"),
        ("fleetprompt.base_url", "http://fleetprompt.example", "https://"),
        ("fleetprompt.base_url", "http://127.0.0.1.evil.example", "https://"),
        ("fleetprompt.base_url", f"https://me:{CANARY}@fleetprompt.example", "password"),
        ("fleetprompt.base_url", "https://", "an address such as"),
        ("fleetprompt.base_url", "https://host:99999", "an address such as"),
        ("fleetprompt.base_url", f"https://host/?key={CANARY}", "an address such as"),
        ("fleetprompt.base_url", "fleetprompt.example", "an address such as"),
        ("fleetprompt.organization_id", "", "UUID"),
        ("bridge.username", "  ", "must not be empty"),
        ("bridge.username", 7, "text in quotation marks"),
        ("bridge.username", f"fp_conn_{CANARY}", "API key"),
        ("bridge.imap.host", "localhost", "127.0.0.1"),
        ("bridge.imap.host", "Localhost.", "127.0.0.1"),
        ("bridge.smtp.host", "bridge.lan:1025", "without a port"),
        ("bridge.smtp.host", "[::1]", "without a port"),
        ("bridge.smtp.host", "https://bridge.lan", "without a port"),
        ("bridge.imap.port", 0, "from 1 to 65535"),
        ("bridge.imap.port", 65536, "from 1 to 65535"),
        ("bridge.imap.port", True, "from 1 to 65535"),
        ("bridge.imap.port", "1143", "from 1 to 65535"),
        ("bridge.imap.tls", "none", '"starttls" or "implicit"'),
        ("bridge.smtp.tls", True, '"starttls" or "implicit"'),
        ("bridge.smtp.timeout_seconds", 120, "from 121"),
        ("mailbox.folders", (), "at least 1 entry"),
        ("mailbox.folders", "INBOX", "list in square brackets"),
        ("mailbox.folders", ("INBOX", "INBOX"), "entry 2 is there twice"),
        ("mailbox.folders", ("INBOX", 3), "entry 2 must be text"),
        ("mailbox.processed_labels", ("Done",), "Labels/Processed"),
        ("mailbox.processed_labels", ("Labels/a/b",), "Labels/Processed"),
        ("mailbox.exclude_senders", ("News <news@example.org>",), "entry 1 must be an address"),
        ("mailbox.exclude_senders", ("@",), "or a domain"),
        ("mailbox.poll_interval_seconds", 19, "from 20 to 3600"),
        ("mailbox.poll_interval_seconds", 30.0, "whole number"),
        ("mailbox.idle", "yes", "true or false"),
        ("privacy.send_body", 1, "true or false"),
        ("privacy.snippet_max_characters", 0, "from 1 to 2000"),
        ("privacy.send_headers", ("Subject:",), "without the colon"),
        ("privacy.attachment_mode", "upload", '"none" or "metadata_only"'),
        ("sending.allowed_from_addresses", ("Me <me@example.org>",), "entry 1 must be a mail"),
        ("sending.allowed_from_addresses", ("*@example.org@",), "entry 1 must be a mail"),
        ("limits.max_messages_per_minute", 0, "from 1"),
        ("limits.max_payload_size_bytes", 65_537, "to 65536"),
        ("limits.max_queue_bytes", 0, "from 65536"),
        ("bridge.certificate_sha256", "AB:CD", "32 pairs of hex digits"),
        ("secrets.store", "plaintext", '"auto" or "keyring"'),
        ("health.heartbeat_interval_seconds", 1, "from 10"),
    ],
)
def test_an_unfit_value_is_named_by_its_key_and_never_repeated(
    tmp_path: Path, key: str, bad: Any, says: str
) -> None:
    problems = problems_of(with_options(tmp_path, {key: bad}))
    assert list(problems) == [key]
    assert says in problems[key]
    assert CANARY not in problems[key]


def test_bodies_need_the_name_of_the_organization_too(tmp_path: Path) -> None:
    problems = problems_of(with_options(tmp_path, {"privacy.send_body": True}))
    assert list(problems) == ["privacy.send_body_to_organization"]
    both = {"privacy.send_body": True, "privacy.send_body_to_organization": CONNECTOR}
    assert load(with_options(tmp_path, both))[0].privacy.send_body


@pytest.mark.parametrize("given", ["ab" * 32, "AB " * 31 + "AB", "ab:" * 31 + "AB"])
def test_a_fingerprint_is_taken_in_any_usual_form(tmp_path: Path, given: str) -> None:
    profile, _ = load(with_options(tmp_path, {"bridge.certificate_sha256": given}))
    assert profile.bridge.certificate_sha256 == ":".join(["AB"] * 32)


def test_trap_7_an_smtp_timeout_that_bridge_may_outlast_is_refused(tmp_path: Path) -> None:
    assert problems_of(with_options(tmp_path, {"bridge.smtp.timeout_seconds": 60}))


@pytest.mark.parametrize(
    ("line", "key", "nearest"),
    [
        ("mailbox = { folder = ['INBOX'] }", "mailbox.folder", "mailbox.folders"),
        (
            "poll_interval_seconds = 30",
            "poll_interval_seconds",
            "mailbox.poll_interval_seconds",
        ),
        ("fleetprompt_base_url = 'x'", "fleetprompt_base_url", "fleetprompt.base_url"),
        ("conector_id = 'x'", "conector_id", "connector_id"),
        ("mailboxes = { x = 1 }", "mailboxes", "mailbox"),
        ("limits = { idle = true }", "limits.idle", "mailbox.idle"),
        ("bridge = { imap = { prot = 1 } }", "bridge.imap.prot", "bridge.imap.port"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    tmp_path: Path, line: str, key: str, nearest: str
) -> None:
    problems = problems_of(profile_file(tmp_path, line))
    assert problems[key] == f"is not an option; do you mean {nearest}?"


def test_an_unknown_key_like_no_other_has_no_suggestion(tmp_path: Path) -> None:
    assert problems_of(profile_file(tmp_path, "zzz = 1"))["zzz"] == "is not an option"


@pytest.mark.parametrize("name", ["password", "bridge_password", "api_key", "connector_secret"])
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, name: str) -> None:
    problems = problems_of(profile_file(tmp_path, f"[bridge]\n{name} = '{CANARY}'"))
    assert "no place in a profile" in problems[f"bridge.{name}"]
    assert CANARY not in repr(problems)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = "bridge = 5\n[mailbox]\nidle = 'no'\nfolders = ['Labels/A']\nprocessed_labels = ['Labels/A']"
    problems = problems_of(profile_file(tmp_path, text))
    assert problems.keys() == {
        "connector_id",
        "fleetprompt.base_url",
        "bridge",
        "mailbox.idle",
        "mailbox.processed_labels",
    }
    assert problems["bridge"] == "must be a table, [bridge]"
    assert "is missing" in problems["connector_id"]
    assert "would come again" in problems["mailbox.processed_labels"]


@pytest.mark.parametrize(
    "content",
    [b"a = ", b"a = 1\na = 2", b"\xff\xfe", b"a = " + b"[" * 100_000, b"[a]\n[a]"],
)
def test_a_file_that_is_not_toml_is_told_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.toml"
    path.write_bytes(content)
    path.chmod(0o600)
    assert problems_of(path)[""].startswith("is not TOML")


def test_a_missing_file_names_the_command_that_makes_one(tmp_path: Path) -> None:
    message = problems_of(tmp_path / "none.toml")[""]
    assert "fleetprompt-edge pair" in message
    assert "fleetprompt-edge init" in message
    assert "cannot be read" in problems_of(tmp_path)[""]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_profile_that_others_can_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = with_options(tmp_path, {})
    path.chmod(mode)
    assert f"mode {mode:04o}" in problems_of(path)[""]


folder_names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30
).filter(lambda name: name.strip() != "")


@given(folders=st.lists(folder_names, min_size=1, max_size=5, unique=True))
def test_any_folder_name_survives_the_file_and_the_shown_values(folders: list[str]) -> None:
    read = every_option()["mailbox.folders"].metadata["read"]
    text = new_profile(REQUIRED | {"mailbox.folders": tuple(folders)})
    assert read(tomllib.loads(text)["mailbox"]["folders"]) == tuple(folders)


def test_the_shown_values_are_a_profile_again(tmp_path: Path) -> None:
    profile, set_keys = load(with_options(tmp_path, {"mailbox.idle": False}))
    shown = effective(profile, set_keys)
    assert "idle = false\n" in shown
    assert "port = 1143  # default\n" in shown
    again, _ = load(profile_file(tmp_path, shown))
    assert again == profile
