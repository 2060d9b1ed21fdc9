"""Starts processes in the order of their needs, watches them, and stops them in reverse.

A process that dies is started anew after a growing pause. One that dies before it was ever ready,
or too often in a row, ends the whole: a platform that is half up helps nobody, and a service
manager above can only act on an exit.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from fleetprompt.runtime.processes import LogSink, Supervised

SUPERVISOR = "supervisor"
_TICK_SECONDS = 0.1
_SHOWN_LINES = 12


class SupervisorError(RuntimeError):
    """A process did not come up, or died too often; the message holds its last lines."""


@dataclass(frozen=True)
class RestartPolicy:
    """How often a dead process is started anew, and after which pause (seconds, doubling)."""

    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 30.0
    steady_after: float = 60.0
    """Having run for so long, a process has its attempts back."""

    def pause(self, failures: int) -> float:
        """Seconds to wait after the given number of failures in a row."""
        return min(self.first_pause * 2.0 ** (failures - 1), self.longest_pause)


@dataclass
class _Watched:
    process: Supervised
    started_at: float | None = None
    ready: bool = False
    ready_once: bool = False
    failures: int = 0
    start_again_at: float | None = None


class Supervisor:
    """Runs processes until it is asked to stop or one of them cannot be kept alive.

    ``start`` blocks until all are ready. Everything happens in one thread of the supervisor's own;
    ``request_stop`` may be called from a signal handler.
    """

    def __init__(
        self,
        processes: Sequence[Supervised],
        log: LogSink,
        *,
        restart: RestartPolicy | None = None,
    ) -> None:
        self._watched = {process.name: _Watched(process) for process in processes}
        self._order: list[str] = []
        self._log = log
        self._restart = restart or RestartPolicy()
        self._stop_asked = threading.Event()
        self._all_ready = threading.Event()
        self._ended = threading.Event()
        self._failure: str | None = None
        self._thread: threading.Thread | None = None
        for process in processes:
            unknown = set(process.after) - self._watched.keys()
            if unknown:
                raise ValueError(f"{process.name} comes after unknown {', '.join(sorted(unknown))}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def processes(self) -> dict[str, Supervised]:
        """All processes by name."""
        return {name: watched.process for name, watched in self._watched.items()}

    def start(self) -> None:
        """Start everything and wait until all is ready.

        SupervisorError if something does not come up; then all has been stopped again. Returns
        early, with everything stopped, if a stop is asked for meanwhile.
        """
        self._thread = threading.Thread(target=self._run, name=SUPERVISOR, daemon=True)
        self._thread.start()
        while not self._all_ready.wait(_TICK_SECONDS) and not self._ended.is_set():
            pass
        if self._ended.is_set() and self._failure:
            raise SupervisorError(self._failure)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most ``seconds``: True when all is stopped.

        SupervisorError if it ended because a process could not be kept alive.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        # In short waits, so that signal handlers of the main thread get their turn.
        while not self._ended.wait(_TICK_SECONDS):
            if deadline is not None and time.monotonic() > deadline:
                return False
        if self._failure:
            raise SupervisorError(self._failure)
        return True

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for, or everything has ended."""
        return self._stop_asked.is_set() or self._ended.is_set()

    def request_stop(self) -> None:
        """Ask for a clean stop and return at once."""
        self._stop_asked.set()

    def stop(self) -> None:
        """Stop everything in reverse order; returns when nothing is left."""
        self.request_stop()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._over():
                for watched in self._watched.values():
                    if not self._over():
                        self._look_at(watched)
                if all(watched.ready for watched in self._watched.values()):
                    self._all_ready.set()
                self._stop_asked.wait(_TICK_SECONDS)
        finally:
            self._stop_all()
            self._ended.set()

    def _over(self) -> bool:
        return self._stop_asked.is_set() or self._failure is not None

    def _look_at(self, watched: _Watched) -> None:
        process = watched.process
        now = time.monotonic()
        if watched.started_at is None:
            if all(self._watched[name].ready for name in process.after):
                self._start(watched)
        elif watched.start_again_at is not None:
            if now >= watched.start_again_at:
                watched.start_again_at = None
                self._start(watched)
        elif process.once and watched.ready:
            return
        elif (code := process.exit_code) is not None and not (process.once and code == 0):
            self._died(watched, code)
        elif not watched.ready:
            if process.is_ready():
                watched.ready = watched.ready_once = True
                if process.once:
                    process.stop()
                took = now - watched.started_at
                self._log(SUPERVISOR, f"{process.name} is ready after {took:.1f} s")
            elif now - watched.started_at > process.ready_within:
                self._fail(process, f"was not ready within {process.ready_within:g} s")
        elif watched.failures and now - watched.started_at > self._restart.steady_after:
            watched.failures = 0

    def _start(self, watched: _Watched) -> None:
        process = watched.process
        watched.started_at = time.monotonic()
        if process.name not in self._order:
            self._order.append(process.name)
        try:
            process.start()
        except (OSError, RuntimeError) as error:
            self._failure = f"{process.name} could not be started: {error}"
            self._log(SUPERVISOR, self._failure)

    def _died(self, watched: _Watched, code: int) -> None:
        process = watched.process
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        # Nothing of an ended program may live on next to its successor.
        process.stop()
        watched.ready = False
        watched.failures += 1
        if not watched.ready_once:
            self._fail(process, f"{how} before it was ready")
        elif watched.failures > self._restart.attempts:
            self._fail(process, f"{how}, {watched.failures} times in a row; giving up")
        else:
            pause = self._restart.pause(watched.failures)
            watched.start_again_at = time.monotonic() + pause
            self._log(
                SUPERVISOR, f"{process.name} {how}; next start in {pause:g} s{_tail(process)}"
            )

    def _fail(self, process: Supervised, what: str) -> None:
        self._failure = f"{process.name} {what}{_tail(process)}"
        self._log(SUPERVISOR, f"{process.name} {what}")

    def _stop_all(self) -> None:
        for name in reversed(self._order):
            process = self._watched[name].process
            if process.exit_code is None:
                self._log(SUPERVISOR, f"stopping {name}")
            process.stop()


def _tail(process: Supervised) -> str:
    lines = list(process.last_lines)[-_SHOWN_LINES:]
    return "; it wrote nothing" if not lines else "; its last lines:\n  " + "\n  ".join(lines)
