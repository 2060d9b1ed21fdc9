"""``secrets set | list | remove | new-key``."""

import argparse
import getpass
import re
import sys
from pathlib import Path

from fleetprompt_edge import vault
from fleetprompt_edge.commands.shared import OK, UNHEALTHY, answering, profile_of
from fleetprompt_edge.errors import SecretError
from fleetprompt_edge.store.lock import running_process
from fleetprompt_edge.telling import tell
from fleetprompt_edge.vault.file import new_key as write_new_key

_KEY = re.compile(r"fp_conn_[0-9A-Za-z]{43}")


@answering
def put(asked: argparse.Namespace) -> int:
    """Store a secret that is typed or piped in; never one of the command line, which others see."""
    profile, folder = profile_of(asked)
    typed = sys.stdin.isatty()
    value = getpass.getpass(f"{asked.name}: ") if typed else sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise SecretError(
            "Nothing was given.", remedy=f"Type it, or: `… secrets set {asked.name} < FILE`"
        )
    _must_look_right(asked.name, value)
    chosen = vault.vaults(profile, folder)
    # systemd's credentials are read only; where there is another place, that one is meant.
    place = next((one for one in chosen if one.label != "systemd credentials"), chosen[0])
    place.put(asked.name, value)
    tell(
        asked,
        {"ok": True, "name": asked.name, "place": place.label},
        f"Stored {asked.name} in the {place.label} and read it back."
        + (" Restart the connector: it reads it when it starts." if _runs(folder) else ""),
    )
    return OK


def _must_look_right(name: str, value: str) -> None:
    """What was copied wrongly is said now, and not repeated."""
    if name == vault.API_KEY and not _KEY.fullmatch(value):
        raise SecretError(
            "That is no connector's key.",
            remedy="It begins with fp_conn_, followed by 43 letters and digits.",
        )
    if name == vault.BRIDGE_PASSWORD and not (value.isascii() and value.isprintable()):
        raise SecretError(
            "That is no password of Bridge's: it has other characters than Bridge's have.",
            remedy="Copy the one that Bridge shows under Mailbox details; it is not Proton's.",
        )


def _runs(folder: Path) -> bool:
    return folder.exists() and running_process(folder) is not None


@answering
def show(asked: argparse.Namespace) -> int:
    """Which secrets are where; never what they are."""
    profile, folder = profile_of(asked)
    places: dict[str, str | None] = {}
    for name in vault.NAMES:
        places[name] = None
        for one in vault.vaults(profile, folder):
            if one.get(name):
                places[name] = one.label
                break
    complete = all(places.values())
    words = "\n".join(f"{name}: {place or 'missing'}" for name, place in places.items())
    tell(asked, {"ok": complete, "secrets": places}, words)
    return OK if complete else UNHEALTHY


@answering
def remove(asked: argparse.Namespace) -> int:
    """Forget a secret wherever it can be forgotten."""
    profile, folder = profile_of(asked)
    removed = [
        one.label
        for one in vault.vaults(profile, folder)
        if one.label != "systemd credentials" and one.remove(asked.name)
    ]
    words = f"Removed {asked.name} from the {removed[0]}." if removed else "It was not there."
    tell(asked, {"ok": True, "removed_from": removed}, words)
    return OK


@answering
def new_key(asked: argparse.Namespace) -> int:
    """Make the key of the encrypted file."""
    path = Path(asked.path).expanduser()
    write_new_key(path)
    tell(asked, {"ok": True, "path": str(path)}, f"Wrote {path}. Set secrets.key_file to it.")
    return OK
