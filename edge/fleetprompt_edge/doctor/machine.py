"""Checks of this machine: disk, database, queue, and the places for secrets."""

import shutil
from pathlib import Path

from fleetprompt_edge import vault
from fleetprompt_edge.doctor.findings import Examination
from fleetprompt_edge.errors import EdgeError, SecretError
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.store import Store

_LEAST_FREE = 100 * 1024 * 1024  # bytes; a full queue and its log fit into that by default


def disk(folder: Path) -> str:
    """Whether there is room for what will be remembered."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise EdgeError(
            f"{there} cannot be looked at: {error.strerror}.",
            remedy="Check owner and permissions of that folder.",
        ) from error
    if free < _LEAST_FREE:
        raise EdgeError(
            f"The disk is full: {free // 1024 // 1024} MB are free for {folder}.",
            remedy="Free some disk space; no mail is lost, it stays in the mailbox meanwhile.",
        )
    return f"{free // 1024 // 1024} MB free"


def database(folder: Path) -> str:
    """Whether it can be opened and written."""
    with Store(folder) as store, store.transaction():
        store.notes.put("doctor", "was here")
        store.notes.remove("doctor")
    return str(folder)


def queue(profile: Profile, folder: Path) -> str:
    """Whether signals get away."""
    with Store(folder) as store, store.transaction():
        backlog = store.queue.backlog()
        full = store.queue.bytes_waiting() >= profile.limits.max_queue_bytes
    if full:
        raise EdgeError(
            f"{backlog.signals} signals wait; there is no room for more, mail stays in the mailbox.",
            remedy="Mend what the checks of the platform name; see `fleetprompt-edge queue list`.",
        )
    if backlog.dead_letters:
        raise EdgeError(
            f"FleetPrompt refused {backlog.dead_letters} signals.",
            remedy="See why: `fleetprompt-edge queue list`; then `queue retry` or `queue drop`.",
        )
    return f"{backlog.signals} signals wait"


def places(found: Examination) -> str:
    """Whether the places for secrets can be opened; a locked one is told here, once."""
    there = vault.vaults(found.profile, found.folder)
    for name in vault.NAMES:
        for place in there:
            if value := place.get(name):
                found.secrets[name] = value
                break
    return ", ".join(place.label for place in there)


def secret(found: Examination, name: str) -> str:
    """Whether one of them is there."""
    if name not in found.secrets:
        raise SecretError(
            f"The secret {name} is not there.",
            remedy=f"Store it: `fleetprompt-edge secrets set {name}`.",
        )
    return "there"
