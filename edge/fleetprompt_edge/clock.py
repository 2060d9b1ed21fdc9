"""Time, through one seam, so that tests can turn it.

Points in time are UTC and go into signals; durations are measured on the monotonic clock only, so
that a clock that is set back or forward neither hurries nor holds up a retry.
"""

import time
from datetime import UTC, datetime
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Now, how long, and waiting."""

    def now(self) -> datetime:
        """The point in time, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait until ``stop`` is set or the time is over; whether it is set."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """The point in time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait until ``stop`` is set or the time is over; whether it is set."""
        return stop.wait(seconds)


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC, milliseconds where there are any."""
    text = moment.astimezone(UTC).isoformat(
        timespec="milliseconds" if moment.microsecond else "seconds"
    )
    return text.replace("+00:00", "Z")
