"""Worker processes that are killed, stopped and replaced at once.

They are forked from a server that has imported everything, so that a new one is there in
milliseconds and a thousand kills do not take a thousand times an interpreter's start.
"""

import contextlib
import multiprocessing
import os
import signal
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fleetprompt.settings import Settings
from tests.chaos.drain_worker import work

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.chaos.drain_worker"])


@dataclass
class Workforce:
    """``number`` places, each with one living worker; each worker has a name that no other had.

    ``harmed`` are the names of those that were killed or stopped, ``ended`` what the others said when
    they ended by themselves.
    """

    settings: Settings
    effects_url: str
    folder: Path
    number: int
    harmed: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    started: int = 0
    _places: list[ForkServerProcess] = field(default_factory=list)

    def start(self) -> None:
        """Fill all places."""
        self._places = [self._new() for _ in range(self.number)]

    @property
    def names(self) -> list[str]:
        """The names of those at work."""
        return [process.name for process in self._places]

    def kill(self, place: int) -> None:
        """SIGKILL, and another one in its place."""
        process = self._places[place]
        self.harmed.add(process.name)
        process.kill()
        process.join(30)
        self._places[place] = self._new()

    def stop(self, place: int) -> ForkServerProcess:
        """SIGSTOP; the process for ``go_on``."""
        process = self._places[place]
        self.harmed.add(process.name)
        _send(process, signal.SIGSTOP)
        return process

    @staticmethod
    def go_on(process: ForkServerProcess) -> None:
        """SIGCONT to one that was stopped, unless it has been killed since."""
        _send(process, signal.SIGCONT)

    def replace_ended(self) -> None:
        """Note what ended by itself, and put another one in its place."""
        for place, process in enumerate(self._places):
            if not process.is_alive():
                words = self._last_words(process.name)
                said = words.read_text() if words.exists() else f"code {process.exitcode}"
                self.ended[process.name] = said.strip().splitlines()[-1]
                self._places[place] = self._new()

    def close(self) -> None:
        """Kill all."""
        for process in self._places:
            process.kill()
            process.join(30)
            process.close()

    def _new(self) -> ForkServerProcess:
        self.started += 1
        name = f"worker-{self.started}"
        process = _FORKS.Process(
            target=work,
            name=name,
            args=(self.settings, name, self.effects_url, self._last_words(name)),
            daemon=True,
        )
        process.start()
        return process

    def _last_words(self, name: str) -> Path:
        return self.folder / f"{name}.txt"


def _send(process: ForkServerProcess, number: signal.Signals) -> None:
    if process.pid is not None and process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
