"""Local times of day in IANA zones: which instant a slot is, and which window it closes.

Pure: no clock, no database. The rules (PRODUCT.md, decision 7):

- One slot per local date. A time of day that the clocks skip is the first instant after the gap;
  one that they show twice is the first of the two.
- A date that a zone never had (Pacific/Apia, 2011-12-30) has no slot.
- A window runs from the previous slot to this one, half open, so windows tile: no hour is lost or
  told twice when clocks change, and a window's true length may be 23, 24.5 or 25 hours.

A slot belongs to the date it was asked for. Where a gap runs to midnight (America/Scoresbysund
skips 23:00 to 24:00 since 2025) a slot in it is the first instant of the following date, and still
that earlier date's slot: take the date from the ``Slot``, not from its instant.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from fleetprompt.errors import InvalidError

# Both are in available_timezones() where the system has them; neither names a place.
_NOT_PLACES = frozenset({"localtime", "Factory"})
_TIME_OF_DAY = re.compile(r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])", re.ASCII)
_ONE_DAY = timedelta(days=1)
_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open stretch ``[start, end)`` of time that one digest tells of, in UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("A window needs instants with a zone.")
        if self.start >= self.end:
            raise ValueError(f"A window must end after it starts: {self.start} to {self.end}.")

    @property
    def length(self) -> timedelta:
        """True length: 23 h or 25 h on the days when clocks change by an hour."""
        return self.end.astimezone(UTC) - self.start.astimezone(UTC)

    def __contains__(self, instant: datetime) -> bool:
        return self.start <= instant < self.end


@dataclass(frozen=True, slots=True)
class Slot:
    """One scheduled instant: the local date that it belongs to and when it is due, in UTC."""

    local_date: date
    due_at: datetime


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every zone name taken: the installed IANA database without ``localtime`` and ``Factory``."""
    return frozenset(available_timezones()) - _NOT_PLACES


def validate_zone(name: object, *, pointer: str = "/timezone") -> ZoneInfo:
    """The zone of that exact IANA name.

    Membership is asked before anything is opened: ``ZoneInfo("Europe")`` alone raises
    IsADirectoryError and ``ZoneInfo("../x")`` a ValueError. Raises InvalidError, which points at
    ``pointer`` and names the nearest zones.
    """
    if isinstance(name, str) and name in zone_names():
        return ZoneInfo(name)
    shown = repr(name)[:_SHOWN]
    detail = f"{shown} is not an IANA time zone such as 'Europe/Berlin' or 'America/New_York'."
    near = _near_zones(name) if isinstance(name, str) else []
    if near:
        detail += f" Did you mean {' or '.join(near)}?"
    raise InvalidError(detail, errors=[{"pointer": pointer, "detail": detail}])


def _near_zones(name: str) -> list[str]:
    """At most three zone names like ``name``: the whole name first, then the place alone."""
    wanted = re.sub(r"[\s-]+", "_", name[:_SHOWN].strip()).casefold()
    whole: dict[str, str] = {}
    places: dict[str, str] = {}
    for known in sorted(zone_names()):
        whole[known.casefold()] = known
        # A place under its continent ("America/New_York") is preferred to a bare alias.
        places[known.rpartition("/")[2].casefold()] = known
    if wanted in whole:
        return [whole[wanted]]
    if wanted in places:
        return [places[wanted]]
    near = [whole[match] for match in get_close_matches(wanted, whole, n=3, cutoff=0.75)]
    near += [places[match] for match in get_close_matches(wanted, places, n=2, cutoff=0.8)]
    return list(dict.fromkeys(near))[:3]


def parse_time_of_day(text: object, *, pointer: str = "/schedule_time") -> time:
    """``HH:MM`` from ``00:00`` to ``23:59`` as a naive time of day.

    Raises InvalidError for anything else, ``24:00``, ``9:05`` and seconds included.
    """
    match = _TIME_OF_DAY.fullmatch(text) if isinstance(text, str) else None
    if match:
        return time(int(match["hour"]), int(match["minute"]))
    detail = f"{repr(text)[:_SHOWN]} is not a time of day from 00:00 to 23:59, written HH:MM."
    if text == "24:00":
        detail += " Midnight is 00:00 of the following date."
    raise InvalidError(detail, errors=[{"pointer": pointer, "detail": detail}])


def slot_instant(local_date: date, time_of_day: time, zone: ZoneInfo) -> datetime | None:
    """The UTC instant of that date's slot, or None if the zone never had that date."""
    if _shown_date(_resolve(local_date, time.min, zone), zone) != local_date:
        return None
    return _resolve(local_date, time_of_day, zone)


def slots_between(
    start: datetime, end: datetime, time_of_day: time, zone: ZoneInfo
) -> Iterator[Slot]:
    """Every slot due in ``[start, end)``, in order; ``start`` and ``end`` carry a zone."""
    # A slot's instant is on its own date or, after a gap that runs to midnight, on the next one.
    day = _shown_date(start, zone) - _ONE_DAY
    last = _shown_date(end, zone)
    while day <= last:
        due_at = slot_instant(day, time_of_day, zone)
        if due_at is not None and start <= due_at < end:
            yield Slot(day, due_at)
        day += _ONE_DAY


def window_of(local_date: date, time_of_day: time, zone: ZoneInfo) -> Window | None:
    """The window that the date's slot closes: from the previous existing date's slot to its own.

    None if the zone never had that date.
    """
    end = slot_instant(local_date, time_of_day, zone)
    if end is None:
        return None
    day = local_date - _ONE_DAY
    start = slot_instant(day, time_of_day, zone)
    while start is None:
        day -= _ONE_DAY
        start = slot_instant(day, time_of_day, zone)
    return Window(start, end)


def _shown_date(instant: datetime, zone: ZoneInfo) -> date:
    """The date that clocks in the zone show at that instant."""
    return instant.astimezone(zone).date()


def _resolve(local_date: date, time_of_day: time, zone: ZoneInfo) -> datetime:
    """The first instant at which clocks in the zone show that local time or a later one, in UTC."""
    # fold=0 reads an overlap's first occurrence, and a gap with the offset before it (PEP 495).
    naive = datetime.combine(local_date, time_of_day)
    instant = naive.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == naive:
        return instant
    # In a gap the two readings lie on both sides of the change; halve down to its second.
    before = naive.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = instant
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if middle.astimezone(zone).replace(tzinfo=None) < naive:
            before = middle
        else:
            after = middle
    return after
