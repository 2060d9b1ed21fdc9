"""``service install | uninstall | status``."""

import argparse
import os
from pathlib import Path

from fleetprompt_edge import vault
from fleetprompt_edge.commands.shared import (
    OK,
    TO_MEND,
    UNHEALTHY,
    answering,
    profile_of,
)
from fleetprompt_edge.errors import SecretError
from fleetprompt_edge.places import state_folder
from fleetprompt_edge.reading import profile_path
from fleetprompt_edge.service.systemd import ServiceError, Systemd
from fleetprompt_edge.service.unit import Unit
from fleetprompt_edge.telling import tell
from fleetprompt_edge.vault.file import key_file_of


@answering
def install(asked: argparse.Namespace) -> int:
    """Make the connector start with the machine, and again when it fails."""
    manager = _manager(asked)
    profile, folder = profile_of(asked)
    path = profile_path(asked.profile).resolve()
    run_as = None
    if not manager.user:
        run_as = asked.run_as or path.owner()
        # Root installs it for the person who paired.
        folder = state_folder(profile, _home(run_as))
    if not asked.print:
        _must_have_secrets(vault.vaults(profile, folder), user=manager.user)
    key_file = key_file_of(profile)
    unit = Unit(
        path,
        folder.resolve(),
        key_file.resolve() if key_file else None,
        run_as,
    )
    if asked.print:
        tell(asked, {"ok": True, "unit": unit.text()}, unit.text())
        return OK
    written = manager.install(asked.name, unit)
    words = [
        f"Wrote {written} and started it.",
        "See how it is: `fleetprompt-edge status`; its logs: "
        f"`journalctl {'--user ' if manager.user else ''}-u {asked.name}`.",
    ]
    if manager.user:
        words.append("It runs while you are logged in; always, after `loginctl enable-linger`.")
    tell(asked, {"ok": True, "unit": str(written), "service": asked.name}, "\n".join(words))
    return OK


@answering
def uninstall(asked: argparse.Namespace) -> int:
    """Stop it and take it out of the machine's start. Profile, secrets and database stay."""
    manager = _manager(asked)
    removed = manager.uninstall(asked.name)
    words = "Removed." if removed else f"There is no {manager.path(asked.name)}."
    tell(asked, {"ok": removed, "removed": removed}, words)
    return OK if removed else TO_MEND


@answering
def status(asked: argparse.Namespace) -> int:
    """How systemd sees it."""
    manager = _manager(asked)
    if not manager.path(asked.name).exists():
        tell(
            asked,
            {"ok": False, "installed": False},
            "It is not installed; `fleetprompt-edge service install` does it.",
        )
        return UNHEALTHY
    found = manager.state(asked.name)
    well = found.get("ActiveState") == "active"
    content = {"ok": well, "installed": True, "service": asked.name, **found}
    words = (
        f"{found.get('ActiveState', 'unknown')} ({found.get('SubState', '')}), "
        f"process {found.get('MainPID', '0')}, started again {found.get('NRestarts', '0')} times. "
        f"{found.get('StatusText', '')}"
    )
    tell(asked, content, words)
    return OK if well else UNHEALTHY


def _manager(asked: argparse.Namespace) -> Systemd:
    if os.name != "posix":
        raise ServiceError(
            "Services are installed where there is systemd.",
            remedy="On Windows let the Task Scheduler, on macOS launchd, run `fleetprompt-edge run`.",
        )
    return Systemd(user=asked.user or (not asked.system and os.geteuid() != 0))


def _home(user: str) -> Path | None:
    """Another user's home folder; None for the one who asks."""
    import pwd

    if user == pwd.getpwuid(os.geteuid()).pw_name:
        return None
    try:
        return Path(pwd.getpwnam(user).pw_dir)
    except KeyError:
        raise ServiceError(
            f"There is no user {user} here.", remedy="Name another: --run-as USER."
        ) from None


def _must_have_secrets(places: list[vault.Vault], *, user: bool) -> None:
    """A service of the system reaches no keyring: that is opened when a person logs in."""
    for name in vault.NAMES:
        label = next((one.label for one in places if one.get(name)), None)
        if label is None:
            raise SecretError(
                f"The secret {name} is not there.",
                remedy=f"Store it: `fleetprompt-edge secrets set {name}`.",
            )
        if label == "system keyring" and not user:
            raise SecretError(
                "The secrets are in your keyring, which a service of the system cannot open.",
                remedy="Install it with --user; or `fleetprompt-edge secrets new-key PATH`, set "
                'secrets.store = "file" and secrets.key_file, and store both secrets again.',
            )
