"""What the commands share: the profile, the store, answering, and what an exit code means."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from fleetprompt_edge.clock import stamp
from fleetprompt_edge.errors import EdgeError, ProfileBusyError, StoreError
from fleetprompt_edge.places import state_folder
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.reading import load, profile_path
from fleetprompt_edge.store import Store
from fleetprompt_edge.telling import tell

OK = 0
UNHEALTHY = 1
TO_MEND = 2
STORE_FAILED = 3
BUSY = 4


def profile_of(asked: argparse.Namespace) -> tuple[Profile, Path]:
    """The profile and its state folder; ``ProfileError`` if it cannot be used."""
    profile, _ = load(profile_path(asked.profile))
    return profile, state_folder(profile)


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The store, beside a connector that may be running."""
    with Store(folder) as store:
        yield store


def answering(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A command whose ``EdgeError`` becomes an answer and an exit code."""

    def command(asked: argparse.Namespace) -> int:
        try:
            return run(asked)
        except EdgeError as error:
            content = {
                "ok": False,
                "error": {"kind": error.kind, "code": error.code, "message": error.message},
                "remedy": error.remedy,
            }
            tell(asked, content, f"{error.message}\n{error.remedy}", file=sys.stderr)
            if isinstance(error, StoreError):
                return STORE_FAILED
            return BUSY if isinstance(error, ProfileBusyError) else TO_MEND

    return command


def moment(epoch: int | None) -> str | None:
    """Epoch seconds as RFC 3339."""
    return None if epoch is None else stamp(datetime.fromtimestamp(epoch, UTC))
