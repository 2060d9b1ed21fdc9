"""What a digest keeps for those that follow, and what a window is told against.

Beside the window before, every number is held against up to seven days: their median, and how far
from it a day usually lies. Both are measures that a single bad day does not move. Whatever a digest
says of earlier windows comes from what those windows' own digests kept, so that two digests never
disagree about the same day.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from statistics import median
from typing import Any, Self

from fleetprompt.schedules.local_time import Window

WEEK = timedelta(days=7)
# With fewer windows than this, what is usual is not known.
ENOUGH = 5
# A window of 22 to 26 hours compares with one of 24; one after a pause does not.
_COMPARABLE = timedelta(hours=3)
# Iglewicz and Hoaglin's rule for outliers: 3.5 deviations, of 1.4826 MAD each.
_FAR = Fraction(7, 2)
_DEVIATION_PER_MAD = Fraction(14826, 10_000)


@dataclass(frozen=True, slots=True)
class Totals:
    """The numbers that are compared with other windows', and stored for the next ones."""

    signals: int = 0
    errors: int = 0
    packages_changed: int = 0
    packages_failed: int = 0
    directives_succeeded: int = 0
    directives_failed: int = 0
    executions_completed: int = 0
    executions_failed: int = 0
    runs_completed: int = 0
    runs_failed: int = 0
    cost_usd: Decimal | None = None
    mails_received: int = 0
    chat_messages: int = 0

    def as_json(self) -> dict[str, Any]:
        """For storing; the cost as a decimal string."""
        stored = asdict(self)
        stored["cost_usd"] = None if self.cost_usd is None else str(self.cost_usd)
        return stored

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` wrote; names that are not totals are passed over."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        if values.get("cost_usd") is not None:
            values["cost_usd"] = Decimal(values["cost_usd"])
        return cls(**values)

    def value(self, name: str) -> Fraction:
        """One of them as a number; a cost that nobody reported is none."""
        found: int | Decimal | None = getattr(self, name)
        return Fraction(found or 0)


@dataclass(frozen=True, slots=True)
class SeenError:
    """A group of errors as a later digest knows it; ``lead`` is an id whose timeline tells of it."""

    name: str
    what: str
    kind: str
    count: int
    last: datetime
    lead: str | None = None

    @property
    def fingerprint(self) -> tuple[str, str, str]:
        """What makes two groups of different windows the same error."""
        return (self.name, self.what, self.kind)


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier window. ``errors`` is None where they are not known in full."""

    window: Window
    totals: Totals
    errors: tuple[SeenError, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """For storing with the digest of that window."""
        return {
            "window": {"start": self.window.start.isoformat(), "end": self.window.end.isoformat()},
            "totals": self.totals.as_json(),
            "errors": None
            if self.errors is None
            else [[*e.fingerprint, e.count, e.last.isoformat(), e.lead] for e in self.errors],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What ``as_json`` wrote; of a digest that kept no errors they are not known."""
        start, end = (datetime.fromisoformat(stored["window"][name]) for name in ("start", "end"))
        kept = stored.get("errors")
        errors = None
        if kept is not None:
            errors = tuple(
                SeenError(name, what, kind, count, datetime.fromisoformat(last), lead)
                for name, what, kind, count, last, lead in kept
            )
        return cls(Window(start, end), Totals.from_json(stored["totals"]), errors)


@dataclass(frozen=True, slots=True)
class Usual:
    """How one total went in earlier windows: the middle of them, the least and the most."""

    median: Fraction
    low: Fraction
    high: Fraction
    deviation: Fraction

    def is_unusual(self, value: Fraction, least: Fraction) -> bool:
        """Whether ``value`` is far from the median, further than days usually are.

        It must also be beyond all of them, so that a weekend is not remarkable beside the one before,
        and off by a quarter of the median and by ``least``, for the sake of very even weeks.
        """
        off = abs(value - self.median)
        beyond = not self.low <= value <= self.high
        return beyond and off >= least and 4 * off >= self.median and off > _FAR * self.deviation


def last_week(window: Window, before: Iterable[Past]) -> tuple[Past, ...]:
    """Of the earlier windows those of seven days that compare with this one, oldest first."""
    return tuple(
        sorted(
            (
                past
                for past in before
                if past.window.end > window.start - WEEK
                and abs(past.window.length - window.length) <= _COMPARABLE
            ),
            key=lambda past: past.window.end,
        )
    )


def usual(values: Sequence[Fraction]) -> Usual | None:
    """What is usual of a total with these earlier values; None if they are too few to tell."""
    return _usual(tuple(values)) if len(values) >= ENOUGH else None


# One digest asks for the same total several times.
@lru_cache(maxsize=64)
def _usual(values: tuple[Fraction, ...]) -> Usual:
    middle = median(values)
    mad = median([abs(value - middle) for value in values])
    return Usual(middle, min(values), max(values), _DEVIATION_PER_MAD * mad)
