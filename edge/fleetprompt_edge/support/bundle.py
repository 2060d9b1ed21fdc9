"""The support bundle: a ZIP file of a few texts that anybody can read before it is given away.

Every text goes through one mask, as JSON values before they are written, so that no quoting hides a secret.
"""

import io
import json
import platform
import sqlite3
import ssl
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from fleetprompt_edge import __version__, vault
from fleetprompt_edge.condition import condition
from fleetprompt_edge.doctor.examine import examine
from fleetprompt_edge.errors import EdgeError, SecretError
from fleetprompt_edge.log import newest_lines
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.store import Store
from fleetprompt_edge.support.masking import Mask
from fleetprompt_edge.toml_text import flat

_LINES = 5_000
_LIBRARIES = ("httpx", "httpcore", "imapclient", "keyring", "cryptography", "certifi")
_ABOUT = """\
What fleetprompt-edge support-bundle packed, for FleetPrompt's support. Read it before you give it away.

config.json    the profile's options; addresses are counted, not named
checks.json    the answer of `fleetprompt-edge doctor`
status.json    the answer of `fleetprompt-edge status`
queue.json     how many signals wait, by type, and why some were refused; none of their texts
versions.json  of the connector, Python, its libraries and this machine's system
log.jsonl      the newest lines of the connector's own log

Left out or masked everywhere: Bridge's password, FleetPrompt's key, mail addresses, names of your own
folders, your home folder. No mail and no part of one is in here.
"""


def bundle(profile: Profile, folder: Path) -> bytes:
    """The ZIP file's bytes. A part that cannot be had says why."""
    mask = Mask(_secrets(profile, folder), _folders(profile, folder), str(Path.home()))
    parts: dict[str, Any] = {
        "config.json": _config(profile),
        "checks.json": _part(lambda: _checks(profile, folder)),
        "status.json": _part(lambda: condition(profile, folder).content()),
        "queue.json": _part(lambda: _queue(folder)),
        "versions.json": _versions(),
    }
    texts = {"README.txt": _ABOUT}
    for name, value in parts.items():
        texts[name] = json.dumps(mask.value(value), indent=2, ensure_ascii=False) + "\n"
    texts["log.jsonl"] = "".join(_masked_line(mask, line) for line in newest_lines(folder, _LINES))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"fleetprompt-edge-support/{name}", text)
    return out.getvalue()


def _secrets(profile: Profile, folder: Path) -> list[str]:
    try:
        places = vault.vaults(profile, folder)
        return [one.get(name) or "" for one in places for name in vault.NAMES]
    except SecretError:
        # Then this process cannot have written them anywhere; the connector's log never holds them.
        return []


def _folders(profile: Profile, folder: Path) -> set[str]:
    mailbox = profile.mailbox
    named = {*mailbox.folders, *mailbox.exclude_folders, *mailbox.processed_labels}
    try:
        with Store(folder) as store, store.transaction():
            named |= {one.name for one in store.ledger.folders()}
    except EdgeError:
        pass
    return named | {part for name in named for part in name.split("/")[1:] if part}


def _config(profile: Profile) -> dict[str, Any]:
    values = flat(profile)
    values["bridge.username"] = "[address]"
    values["sending.allowed_from_addresses"] = len(profile.sending.allowed_from_addresses)
    values["mailbox.exclude_senders"] = len(profile.mailbox.exclude_senders)
    return values


def _checks(profile: Profile, folder: Path) -> list[dict[str, Any]]:
    found = []
    for one in examine(profile, folder):
        # It lists the mailbox's folders, whose names are the customer's own.
        private = one.name == "folders"
        found.append({**vars(one), "message": "", "remedy": ""} if private else vars(one))
    return found


def _queue(folder: Path) -> dict[str, Any]:
    with Store(folder) as store, store.transaction():
        backlog = store.queue.backlog()
        waiting: dict[str, int] = {}
        for signal in store.queue.first(1 << 30, 1 << 40):
            waiting[signal.type] = waiting.get(signal.type, 0) + 1
        refused = [
            {name: value for name, value in one._asdict().items() if name != "dedupe_key"}
            for one in store.queue.dead_letters()
        ]
    return {
        "signals": backlog.signals,
        "bytes": backlog.bytes,
        "oldest": backlog.oldest,
        "waiting": waiting,
        "refused": refused,
    }


def _versions() -> dict[str, Any]:
    return {
        "fleetprompt-edge": __version__,
        "standalone": bool(getattr(sys, "frozen", False)),
        "python": platform.python_version(),
        "system": platform.platform(),
        "openssl": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _part(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except EdgeError as error:
        return {"missing": error.message, "remedy": error.remedy}


def _masked_line(mask: Mask, line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        # Cut off by a crash or a full disk.
        return ""
    return json.dumps(mask.value(value), ensure_ascii=False) + "\n"
