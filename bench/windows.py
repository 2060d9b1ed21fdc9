"""Digest windows in every zone of the installed IANA database, over ten years.

Every date's window must start where the one before ended, every local date must have one slot, and
the slot must be the instant that cronsim, a model of Debian's cron, finds. Around each change of
the clocks that is asked of every half hour of the day, elsewhere of two times of day.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim
from rich.console import Console
from rich.progress import track

from bench.report import Bound
from fleetprompt.schedules.local_time import slot_instant, window_of, zone_names

FIRST, LAST = date(2018, 1, 1), date(2027, 12, 31)
_DAY = timedelta(days=1)
_EVERY_DAY_AT = (time(0, 30), time(9, 0))
_HALF_HOURS = tuple(time(hour, minute) for hour in range(24) for minute in (0, 30))
# Two dates before a change and two after it.
_AROUND = 2


@dataclass(slots=True)
class Survey:
    """What was looked at, and what was found wrong."""

    windows: int = 0
    compared: int = 0
    holes_or_overlaps: int = 0
    dates_without_one_slot: int = 0
    disagreements: int = 0

    def add(self, other: "Survey") -> None:
        """The sum of both."""
        self.windows += other.windows
        self.compared += other.compared
        self.holes_or_overlaps += other.holes_or_overlaps
        self.dates_without_one_slot += other.dates_without_one_slot
        self.disagreements += other.disagreements


def survey(zone: ZoneInfo, first: date = FIRST, last: date = LAST) -> Survey:
    """One zone: two times of day on every date, every half hour around its changes."""
    found = Survey()
    dates = _dates(first, last)
    for at in _EVERY_DAY_AT:
        _tile(found, zone, at, dates)
    for changed in changes(zone, first, last):
        near = _dates(changed - _AROUND * _DAY, changed + _AROUND * _DAY)
        for at in _HALF_HOURS:
            _tile(found, zone, at, near)
            _compare(found, zone, at, near)
    return found


def changes(zone: ZoneInfo, first: date, last: date) -> Iterator[date]:
    """The dates within which the zone's offset from UTC changes."""
    midnights = [datetime.combine(day, time.min, zone) for day in _dates(first, last + _DAY)]
    for start, end in pairwise(midnights):
        if start.utcoffset() != end.utcoffset():
            yield start.date()


def _dates(first: date, last: date) -> list[date]:
    return [first + n * _DAY for n in range((last - first).days + 1)]


def _tile(found: Survey, zone: ZoneInfo, at: time, dates: Iterable[date]) -> None:
    windows = [window_of(day, at, zone) for day in dates]
    known = [window for window in windows if window is not None]
    found.windows += len(known)
    found.holes_or_overlaps += sum(a.end != b.start for a, b in pairwise(known))
    # No zone leaves a date out in these years; equal ends would be two slots of one instant.
    found.dates_without_one_slot += len(windows) - len({window.end for window in known})


def _compare(found: Survey, zone: ZoneInfo, at: time, dates: list[date]) -> None:
    evening = datetime.combine(dates[0] - _DAY, time(23, 59), zone)
    theirs = CronSim(f"{at.minute} {at.hour} * * *", evening)
    for day, fired in zip(dates, theirs, strict=False):
        found.compared += 1
        found.disagreements += slot_instant(day, at, zone) != fired.astimezone(UTC)


def by_rules(names: Iterable[str]) -> list[list[str]]:
    """The zones grouped by what their clocks do in these years: many names are aliases."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        zone = ZoneInfo(name)
        hours = [
            datetime.combine(day, time(hour), UTC).astimezone(zone).utcoffset()
            for changed in changes(zone, FIRST, LAST)
            for day in _dates(changed - _DAY, changed + _DAY)
            for hour in range(24)
        ]
        start = datetime.combine(FIRST, time.min, zone).utcoffset()
        key = (start, *changes(zone, FIRST, LAST), *hours)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def measure(console: Console) -> list[Bound]:
    """Survey every installed zone, those of the same rules together; each bound is none."""
    total = Survey()
    groups = by_rules(sorted(zone_names()))
    for names in track(groups, "windows in every zone", console=console):
        total.add(survey(ZoneInfo(names[0])))
    zones = f"{len(zone_names())} zones of {len(groups)} rules, {FIRST.year} to {LAST.year}"
    return [
        Bound(
            f"holes or overlaps of {total.windows:,} windows in {zones}",
            total.holes_or_overlaps,
            "windows",
            0,
        ),
        Bound("local dates without exactly one slot", total.dates_without_one_slot, "dates", 0),
        Bound(
            f"slots that cronsim puts elsewhere, of {total.compared:,} around changes of the clocks",
            total.disagreements,
            "slots",
            0,
        ),
    ]
