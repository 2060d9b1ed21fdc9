"""The one place that asks what time it is, so that tests can set it."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """Now, with zone UTC."""
    return datetime.now(UTC)
