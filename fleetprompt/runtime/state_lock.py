"""One platform for a state folder, and a note for others about which processes are its own."""

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self


class AlreadyRunningError(RuntimeError):
    """Another process runs the platform with this state folder."""


def _path(state_dir: Path) -> Path:
    return state_dir / "up.json"


class StateLock:
    """Held while the platform runs; the kernel lets go of it however the holder ends.

    Two daemons on one Dagster database would start everything twice.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self._state_dir.mkdir(parents=True, exist_ok=True)
        file = _path(self._state_dir).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            holder = (running(self._state_dir) or {}).get("pid", "unknown")
            raise AlreadyRunningError(
                f"the platform already runs with state folder {self._state_dir} (process {holder}): "
                "stop it, or set FLEETPROMPT_STATE_DIR to another folder"
            ) from None
        self._file = file
        self.describe({"pid": os.getpid()})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def describe(self, facts: dict[str, Any]) -> None:
        """Write down what runs; no secret belongs in it."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.write(json.dumps(facts))
            self._file.flush()


def running(state_dir: Path) -> dict[str, Any] | None:
    """What the platform of this folder wrote down about itself; None if none runs."""
    try:
        with _path(state_dir).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = file.read()
                found: dict[str, Any] = json.loads(text) if text else {}
                return found
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return None
