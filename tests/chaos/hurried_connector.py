"""``python -m tests.chaos.hurried_connector 6 run``: the connector, whose pauses pass six times as fast.

How long it waits between two tries changes nothing of what it does in them. Time limits of sockets and the
time of day stay what they are.
"""

import sys
import time
from functools import partial
from threading import Event
from unittest.mock import patch

from fleetprompt_edge.cli import main
from fleetprompt_edge.clock import SystemClock
from fleetprompt_edge.commands import working


class HurriedClock(SystemClock):
    """The machine's clocks; what is waited for and measured passes ``times`` as fast."""

    def __init__(self, times: float) -> None:
        self._times = times

    def monotonic(self) -> float:
        """Seconds since some moment, each as short."""
        return time.monotonic() * self._times

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait for the shorter time."""
        return stop.wait(seconds / self._times)


if __name__ == "__main__":
    with patch.object(working, "SystemClock", partial(HurriedClock, float(sys.argv[1]))):
        sys.exit(main(sys.argv[2:]))
