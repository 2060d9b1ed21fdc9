"""One running connector for each profile.

The lock is the operating system's (``flock``, on Windows ``msvcrt.locking``): it goes with the
process however that ends, and a file that was left behind locks nothing.
"""

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from fleetprompt_edge.errors import ProfileBusyError


class ProfileLock:
    """Held while the block runs; ``ProfileBusyError`` names the process that holds it already.

    ``patience``: seconds to wait for it; ``running_process`` holds it for a moment too.
    """

    def __init__(self, folder: Path, *, patience: float = 0.0) -> None:
        self._path = folder / "running.lock"
        self._patience = patience
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + self._patience
        while not _locked(descriptor):
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise ProfileBusyError(
                f"Another connector runs with this profile (process {holder or 'unknown'}).",
                remedy="Stop that one first, or give this one a profile of its own.",
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def running_process(folder: Path) -> int | None:
    """The process that holds the lock, if one does."""
    try:
        with ProfileLock(folder):
            return None
    except ProfileBusyError:
        text = (folder / "running.lock").read_text().strip()
        return int(text) if text.isdecimal() else 0


def _locked(descriptor: int) -> bool:
    try:
        _lock(descriptor)
    except OSError:
        return False
    return True


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        # Far behind the number, so that it can be read by others.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
