"""Slots and windows in local time, against every way in which clocks are known to change."""

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import windows
from bench.windows import changes, survey
from fleetprompt.errors import InvalidError
from fleetprompt.schedules.local_time import (
    Window,
    parse_time_of_day,
    slot_instant,
    slots_between,
    validate_zone,
    window_of,
    zone_names,
)

ZONES = (
    "America/New_York",
    "America/Havana",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/St_Johns",
    "America/Nuuk",
    "America/Scoresbysund",
    "Atlantic/Azores",
    "Europe/Berlin",
    "Europe/Dublin",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "UTC",
)
FIRST, LAST = date(2018, 1, 1), date(2027, 12, 31)
DAY = timedelta(days=1)
times_of_day = st.builds(time, st.integers(0, 23), st.integers(0, 59))


def local(instant: datetime, zone: ZoneInfo) -> str:
    return instant.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")


def days(first: date, last: date) -> list[date]:
    return [first + DAY * n for n in range((last - first).days + 1)]


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("at", [time(0, 0), time(2, 30), time(23, 30)])
def test_trap_22_windows_tile_ten_years_without_hole_or_overlap(name: str, at: time) -> None:
    zone = ZoneInfo(name)
    windows = [window for day in days(FIRST, LAST) if (window := window_of(day, at, zone))]
    assert len(windows) == len(days(FIRST, LAST))
    assert all(before.end == after.start for before, after in pairwise(windows))
    assert {window.length for window in windows} <= {
        timedelta(hours=hours) for hours in (22, 22.5, 23, 23.5, 24, 24.5, 25, 26)
    }


@given(
    name=st.sampled_from(ZONES),
    at=times_of_day,
    first=st.dates(date(1985, 1, 1), date(2037, 1, 1)),
)
@settings(max_examples=300, deadline=None)
def test_trap_22_a_year_of_slots_has_one_a_local_date_and_tiles(
    name: str, at: time, first: date
) -> None:
    zone = ZoneInfo(name)
    slots = {day: slot_instant(day, at, zone) for day in days(first, first + DAY * 60)}
    due = [instant for instant in slots.values() if instant is not None]
    assert due == sorted(set(due))
    for day, instant in slots.items():
        if instant is None:
            continue
        shown = instant.astimezone(zone)
        window = window_of(day, at, zone)
        assert window is not None
        assert window.end == instant
        # Never before the time that was asked for, and just before it the clock showed less.
        assert (shown.date(), shown.time()) >= (day, at)
        earlier = (instant - timedelta(seconds=1)).astimezone(zone)
        assert (earlier.date(), earlier.time()) < (day, at)
        if shown.date() != day:
            assert shown.time() == time(0) or earlier.date() == day


@given(
    name=st.sampled_from(ZONES),
    at=times_of_day,
    start=st.datetimes(datetime(2000, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)),
    hours=st.integers(1, 24 * 40),
    cut=st.integers(0, 24 * 40),
)
@settings(max_examples=200, deadline=None)
def test_slots_between_two_instants_can_be_asked_in_pieces(
    name: str, at: time, start: datetime, hours: int, cut: int
) -> None:
    zone = ZoneInfo(name)
    end = start + timedelta(hours=hours)
    middle = start + timedelta(hours=min(cut, hours))
    whole = list(slots_between(start, end, at, zone))
    assert whole == [*slots_between(start, middle, at, zone), *slots_between(middle, end, at, zone)]
    assert all(start <= slot.due_at < end for slot in whole)
    assert [slot.due_at for slot in whole] == [
        slot_instant(slot.local_date, at, zone) for slot in whole
    ]
    assert abs(len(whole) - hours / 24) < 2


@pytest.mark.parametrize(
    ("name", "day", "at", "expected"),
    [
        # A gap in the night, at midnight, of half an hour.
        ("America/New_York", date(2026, 3, 8), time(2, 30), "2026-03-08 03:00:00"),
        ("Africa/Cairo", date(2026, 4, 24), time(0, 30), "2026-04-24 01:00:00"),
        ("Asia/Beirut", date(2026, 3, 29), time(0, 0), "2026-03-29 01:00:00"),
        ("America/Havana", date(2026, 3, 8), time(0, 59), "2026-03-08 01:00:00"),
        ("Atlantic/Azores", date(2026, 3, 29), time(0, 15), "2026-03-29 01:00:00"),
        ("Australia/Lord_Howe", date(2026, 10, 4), time(2, 10), "2026-10-04 02:30:00"),
        # The last time before a gap and the first one after it are not moved.
        ("America/New_York", date(2026, 3, 8), time(1, 59), "2026-03-08 01:59:00"),
        ("America/New_York", date(2026, 3, 8), time(3, 0), "2026-03-08 03:00:00"),
        # A gap that runs to midnight: the date keeps its slot.
        ("America/Scoresbysund", date(2025, 3, 29), time(23, 30), "2025-03-30 00:00:00"),
    ],
)
def test_trap_22_a_skipped_time_is_the_first_instant_after_the_gap(
    name: str, day: date, at: time, expected: str
) -> None:
    zone = ZoneInfo(name)
    instant = slot_instant(day, at, zone)
    assert instant is not None
    assert instant.tzinfo is UTC
    assert local(instant, zone) == expected


@pytest.mark.parametrize(
    ("name", "day", "at", "expected"),
    [
        ("America/New_York", date(2026, 11, 1), time(1, 30), "2026-11-01 05:30"),
        ("Africa/Cairo", date(2026, 10, 29), time(23, 30), "2026-10-29 20:30"),
        ("America/Havana", date(2026, 11, 1), time(0, 30), "2026-11-01 04:30"),
        ("Australia/Lord_Howe", date(2026, 4, 5), time(1, 45), "2026-04-04 14:45"),
        ("Africa/Casablanca", date(2026, 2, 15), time(2, 30), "2026-02-15 01:30"),
    ],
)
def test_trap_23_a_time_shown_twice_is_the_first_of_the_two(
    name: str, day: date, at: time, expected: str
) -> None:
    zone = ZoneInfo(name)
    instant = slot_instant(day, at, zone)
    assert instant is not None
    assert instant.strftime("%Y-%m-%d %H:%M") == expected
    assert local(instant, zone) == local(instant + timedelta(minutes=30), zone) or local(
        instant + timedelta(hours=1), zone
    ) == local(instant, zone)


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("America/New_York", date(2026, 3, 8), 23),
        ("America/New_York", date(2026, 11, 1), 25),
        ("America/New_York", date(2026, 6, 1), 24),
        ("Australia/Lord_Howe", date(2026, 10, 4), 23.5),
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
        ("Antarctica/Troll", date(2026, 3, 29), 22),
    ],
)
def test_trap_22_a_window_has_its_true_length(name: str, day: date, hours: float) -> None:
    window = window_of(day, time(9), ZoneInfo(name))
    assert window is not None
    assert window.length == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("name", "day"),
    [("Pacific/Apia", date(2011, 12, 30)), ("Pacific/Kwajalein", date(1993, 8, 21))],
)
@pytest.mark.parametrize("at", [time(0), time(9), time(23, 59)])
def test_trap_22_a_date_that_never_was_has_no_slot(name: str, day: date, at: time) -> None:
    zone = ZoneInfo(name)
    assert slot_instant(day, at, zone) is None
    assert window_of(day, at, zone) is None
    following = window_of(day + DAY, at, zone)
    assert following is not None
    assert following.start == slot_instant(day - DAY, at, zone)
    assert following.length == timedelta(hours=24)


@pytest.mark.parametrize("name", ZONES)
def test_trap_23_around_every_change_of_the_clocks_cronsim_finds_the_same_slots(name: str) -> None:
    """Every half hour of the day; ``python -m bench --only windows`` asks all zones of ten years."""
    zone, first, last = ZoneInfo(name), date(2024, 1, 1), date(2026, 12, 31)
    found = survey(zone, first, last)
    assert found.compared == 5 * 48 * len(list(changes(zone, first, last)))
    assert found.windows == 2 * len(days(first, last)) + found.compared
    assert (found.holes_or_overlaps, found.dates_without_one_slot, found.disagreements) == (0, 0, 0)


@pytest.mark.slow
def test_trap_22_every_installed_zone_tiles_over_three_years() -> None:
    at = time(0, 30)
    dates = days(date(2025, 1, 1), LAST)
    for name in sorted(zone_names()):
        zone = ZoneInfo(name)
        due = [slot for day in dates if (slot := slot_instant(day, at, zone))]
        assert len(due) == len(dates), name
        gaps = {after - before for before, after in pairwise(due)}
        assert min(gaps) >= timedelta(hours=21), name
        assert max(gaps) <= timedelta(hours=27), name


@pytest.mark.parametrize(
    "name",
    [
        *[
            "Europe",
            "",
            "localtime",
            "Factory",
            "../etc/passwd",
            "/etc/passwd",
            "Mars/Base",
            "UTC\x00",
        ],
        *["posix/UTC", "right/UTC", "tzdata.zi", "Europe/Berlin ", "europe/berlin", "x" * 10_000],
        *["\ud800", None, 7, ["UTC"]],
    ],
)
def test_trap_28_what_is_not_a_zone_is_a_problem_with_a_pointer(name: object) -> None:
    with pytest.raises(InvalidError) as told:
        validate_zone(name)
    assert told.value.errors == [{"pointer": "/timezone", "detail": told.value.detail}]
    assert len(told.value.detail) < 300


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Europe/Berln", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("America/New-York", "America/New_York"),
        ("kathmandu", "Asia/Kathmandu"),
    ],
)
def test_an_unknown_zone_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InvalidError, match=f"Did you mean .*{near}"):
        validate_zone(name, pointer="/config/timezone")


def test_a_survey_of_windows_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's bounds are not met by a rule that loses an hour or fires an overlap's second."""

    def second_occurrence(day: date, at: time, zone: ZoneInfo) -> datetime:
        return datetime.combine(day, at, zone).replace(fold=1).astimezone(UTC)

    def last_24_hours(day: date, at: time, zone: ZoneInfo) -> Window:
        end = second_occurrence(day, at, zone)
        return Window(end - DAY, end)

    monkeypatch.setattr(windows, "slot_instant", second_occurrence)
    monkeypatch.setattr(windows, "window_of", last_24_hours)
    found = survey(ZoneInfo("America/New_York"), date(2026, 1, 1), date(2026, 12, 31))
    assert found.holes_or_overlaps > 0
    assert found.disagreements > 0


def test_every_zone_offered_can_be_opened() -> None:
    assert all(validate_zone(name).key == name for name in zone_names())
    assert {"UTC", "Europe/Berlin", "Asia/Kathmandu"} <= zone_names()


@given(times_of_day)
def test_every_time_of_day_reads_back(at: time) -> None:
    assert parse_time_of_day(at.strftime("%H:%M")) == at


@pytest.mark.parametrize(
    "text",
    [
        *[
            "24:00",
            "25:00",
            "9:5",
            "9:05",
            "09:5",
            "09:60",
            "09:00:00",
            " 09:00",
            "09:00\n",
            "0900",
        ],
        *["", "٠٩:٠٠", "-1:00", "09.00", None, 900],
    ],
)
def test_what_is_not_a_time_of_day_is_refused_clearly(text: object) -> None:
    with pytest.raises(InvalidError, match="HH:MM") as told:
        parse_time_of_day(text)
    assert told.value.errors[0]["pointer"] == "/schedule_time"


def test_a_window_is_half_open_and_never_empty_or_naive() -> None:
    start = datetime(2026, 3, 8, tzinfo=UTC)
    window = Window(start, start + DAY)
    assert start in window
    assert start + DAY not in window
    with pytest.raises(ValueError, match="end after"):
        Window(start, start)
    with pytest.raises(ValueError, match="with a zone"):
        Window(datetime(2026, 3, 8), start)
