"""One supervised child process: started in a group of its own, read line by line, stopped whole."""

import collections
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fleetprompt.runtime.reaper import reaper
from fleetprompt.secrets import redact

LogSink = Callable[[str, str], None]
"""Takes the name of a process and one line that it wrote."""

_KEPT_LINES = 40


@dataclass(frozen=True)
class Program:
    """What to run, after what, and how to tell that it is ready.

    ``after`` names programs that must be ready first. ``ready`` is called every tenth of a second
    from the supervisor's thread and must answer quickly; None means ready once started. A ``once``
    program is a step: ready when it ended with code 0. What a ``quiet`` one writes is told only if
    it fails. Times are in seconds.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    after: Sequence[str] = ()
    ready: Callable[[], bool] | None = None
    once: bool = False
    quiet: bool = False
    ready_within: float = 90.0
    stop_within: float = 10.0
    directory: Path | None = None


class Supervised(Protocol):
    """What the supervisor starts, watches and stops: a child process or the embedded database."""

    name: str
    after: Sequence[str]
    once: bool
    ready_within: float

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""

    @property
    def exit_code(self) -> int | None:
        """Exit code once it has ended (negative: the signal); None while it runs."""

    @property
    def last_lines(self) -> Sequence[str]:
        """What it wrote last, secrets masked."""

    def start(self) -> None:
        """Start it, for the first time or anew."""

    def is_ready(self) -> bool:
        """Whether those that come after it may start."""

    def stop(self) -> None:
        """Stop it and everything it started; quiet if it does not run."""


class ChildProcess:
    """A program as a child of this one, leader of its own process group."""

    def __init__(self, program: Program, log: LogSink) -> None:
        self.program = program
        self.name = program.name
        self.after = program.after
        self.once = program.once
        self.ready_within = program.ready_within
        self._log = log
        self._lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """Process id, which is also the group's; None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """Exit code once it has ended (negative: the signal)."""
        return self._process.poll() if self._process else None

    @property
    def last_lines(self) -> Sequence[str]:
        """What it wrote last, secrets masked."""
        if self.exit_code is not None and self._reader is not None:
            self._reader.join(1.0)
        return list(self._lines)

    def start(self) -> None:
        """Start the program; OSError if it cannot be executed."""
        self.stop()
        self._lines.clear()
        process = subprocess.Popen(
            list(self.program.command),
            env=dict(self.program.environment),
            cwd=self.program.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        reaper.guard(process.pid)
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def is_ready(self) -> bool:
        """Whether its probe says so; for a step, whether it ended well."""
        if self.once:
            return self.exit_code == 0
        if self._process is None or self.exit_code is not None:
            return False
        return self.program.ready is None or self.program.ready()

    def stop(self) -> None:
        """SIGTERM to the group, SIGKILL to what is left of it after the program's grace.

        Also clears away what a program that ended by itself has left running; then the group's
        number is given up and never signalled again.
        """
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        deadline = time.monotonic() + self.program.stop_within
        if _signal_group(process.pid, signal.SIGTERM):
            while time.monotonic() < deadline and self._group_lives(process):
                time.sleep(0.02)
            if self._group_lives(process):
                self._log(self.name, f"did not stop within {self.program.stop_within:g} s: killed")
                _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        reaper.release(process.pid)
        reader.join(5)
        if process.stdout is not None and not reader.is_alive():
            process.stdout.close()
        self._reader = None

    @staticmethod
    def _group_lives(process: subprocess.Popen[bytes]) -> bool:
        process.poll()
        return _signal_group(process.pid, 0)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - opened with a pipe
        for raw in process.stdout:
            line = redact(raw.decode(errors="replace").rstrip())
            if line:
                self._lines.append(line)
                if not self.program.quiet:
                    self._log(self.name, line)


def _signal_group(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
