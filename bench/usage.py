"""What processes cost: CPU seconds and memory of this process's descendants, by what they are."""

import contextlib
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_EVERY_SECONDS = 0.25

# What a process is, by a word of its command line; the first that fits.
_KINDS = (
    ("spawn_main", "runs"),
    ("postgres", "PostgreSQL"),
    ("dagster_webserver", "webserver"),
    ("dagster._daemon", "daemon"),
    ("dagster", "code server"),
    ("uvicorn", "API"),
)
RUNS = "runs"


@dataclass
class _Seen:
    kind: str
    first: float
    last: float
    peak_bytes: int


class Usage:
    """Measures while its block lasts, a few times a second; what ends between two looks is cut short."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], _Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="usage", daemon=True)

    def cpu_seconds(self) -> Counter[str]:
        """CPU seconds by kind of process."""
        found: Counter[str] = Counter()
        for one in list(self._seen.values()):
            found[one.kind] += one.last - one.first  # type: ignore[assignment]
        return found

    def peak_mb(self, kind: str) -> float:
        """The largest memory that one process of this kind held at once, in MB."""
        held = (one.peak_bytes for one in list(self._seen.values()) if one.kind == kind)
        return max(held, default=0) / 1e6

    def told(self) -> str:
        """All of it in a line."""
        cpu = ", ".join(
            f"{kind} {seconds:.1f}" for kind, seconds in self.cpu_seconds().most_common()
        )
        total = sum(self.cpu_seconds().values())
        return f"CPU seconds: {total:.1f} ({cpu}); largest run {self.peak_mb(RUNS):.0f} MB"

    def __enter__(self) -> Self:
        for process in psutil.Process().children(recursive=True):
            self._look(process, new=False)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            for process in psutil.Process().children(recursive=True):
                self._look(process, new=True)

    def _look(self, process: psutil.Process, *, new: bool) -> None:
        with contextlib.suppress(psutil.Error, OSError):
            times = process.cpu_times()
            used = times.user + times.system
            key = (process.pid, process.create_time())
            if key not in self._seen:
                kind = _kind_of(process.cmdline())
                self._seen[key] = _Seen(kind, 0.0 if new else used, used, 0)
            one = self._seen[key]
            one.last, one.peak_bytes = used, _peak_bytes(process.pid)


def _kind_of(command: list[str]) -> str:
    line = " ".join(command)
    return next((kind for word, kind in _KINDS if word in line), "others")


def _peak_bytes(pid: int) -> int:
    """``VmHWM``: the most memory that was ever resident, shared pages included."""
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")] or ["VmHWM: 0 kB"]
    return int(line.split()[1]) * 1024


def resident_mb() -> Counter[str]:
    """What this process's descendants hold now, in MB by kind; what some share is counted once."""
    found: Counter[str] = Counter()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            held = process.memory_full_info().pss / 1e6
            found[_kind_of(process.cmdline())] += held  # type: ignore[assignment]
    return found
