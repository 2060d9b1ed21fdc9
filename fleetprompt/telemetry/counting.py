"""Counting within a process: additions that wait to be written to the table of all processes.

One short critical section a count, because the thread that keeps leases alive counts as well. Hot
paths count once a flush and never once a signal.
"""

import threading
from bisect import bisect_left
from collections.abc import Mapping

from fleetprompt.telemetry.catalogue import Metric

Series = tuple[str, tuple[str, ...]]
"""A metric's name and the values of its labels in their order."""

Amounts = list[float]
"""Of a counter: what was added. Of a histogram: the sum, then the count of each bucket, the infinite last."""


class Recorder:
    """What was counted since it was last taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._amounts: dict[Series, Amounts] = {}

    def add(self, metric: Metric, labels: tuple[str, ...] = (), amount: float = 1.0) -> None:
        """Add to a counter."""
        series = (metric.name, labels)
        with self._lock:
            found = self._amounts.get(series)
            if found is None:
                self._amounts[series] = [amount]
            else:
                found[0] += amount

    def observe(self, metric: Metric, value: float, labels: tuple[str, ...] = ()) -> None:
        """Put one value into a histogram."""
        series = (metric.name, labels)
        bucket = bisect_left(metric.buckets, value) + 1
        with self._lock:
            found = self._amounts.get(series)
            if found is None:
                found = self._amounts[series] = [0.0] * (len(metric.buckets) + 2)
            found[0] += value
            found[bucket] += 1

    def take(self) -> dict[Series, Amounts]:
        """What was counted since the last call, which is then the caller's to keep."""
        with self._lock:
            taken, self._amounts = self._amounts, {}
        return taken

    def peek(self) -> dict[Series, Amounts]:
        """A copy of what waits to be taken."""
        with self._lock:
            return {series: list(amounts) for series, amounts in self._amounts.items()}

    def give_back(self, taken: Mapping[Series, Amounts]) -> None:
        """Count again what could not be written."""
        with self._lock:
            sum_up(self._amounts, taken)


def sum_up(into: dict[Series, Amounts], more: Mapping[Series, Amounts]) -> None:
    """Add ``more`` to ``into``, series by series."""
    for series, amounts in more.items():
        found = into.get(series)
        if found is None:
            into[series] = list(amounts)
        else:
            into[series] = [a + b for a, b in zip(found, amounts, strict=True)]


RECORDER = Recorder()
