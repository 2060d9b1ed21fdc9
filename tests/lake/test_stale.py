"""Marks: what is due, what waits, and that none is lost."""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from fleetprompt.db.engine import Database
from fleetprompt.lake.days import write_signals
from fleetprompt.lake.stale import (
    StaleDay,
    forget_marks,
    read_marks,
    settled,
    stale_days,
)
from fleetprompt.tenants.service import Tenant

Insert = Callable[..., Awaitable[None]]
DAY = date(2026, 3, 8)
NOON = datetime(2026, 3, 8, 12, tzinfo=UTC)


def _stale(tenants: int, day: date, marked_at: datetime) -> list[StaleDay]:
    return [StaleDay(f"t{n}", day, n, marked_at) for n in range(tenants)]


def test_a_late_signals_day_is_due_within_half_a_minute() -> None:
    stale = _stale(1, DAY - timedelta(days=10), NOON)
    assert settled(stale, NOON + timedelta(seconds=19)) == []
    assert settled(stale, NOON + timedelta(seconds=20)) == stale


def test_today_waits_longer_the_more_tenants_there_are() -> None:
    few, many = _stale(3, DAY, NOON), _stale(1_000, DAY, NOON)
    assert settled(few, NOON + timedelta(minutes=2)) == few
    assert settled(many, NOON + timedelta(minutes=99)) == []
    assert settled(many, NOON + timedelta(minutes=100)) == many
    huge = _stale(5_000, DAY, NOON)
    assert settled(huge, NOON + timedelta(hours=2)) == huge


async def test_a_mark_that_comes_while_the_day_is_written_stays(
    database: Database, lake: Path, insert: Insert, tenant: Tenant
) -> None:
    async def mine() -> list[StaleDay]:
        return [each for each in await stale_days(database) if each.tenant == tenant.slug]

    await insert(tenant, NOON)
    await insert(tenant, NOON)
    key = (tenant.slug, DAY)
    marks = await read_marks(database, [key])
    assert len(marks[key]) == 2
    await write_signals(database, lake, tenant, DAY)
    await insert(tenant, NOON)
    await forget_marks(database, marks[key])

    [left] = await mine()
    assert (left.day, left.oldest_mark > max(marks[key])) == (DAY, True)
    marks = await read_marks(database, [key])
    report = await write_signals(database, lake, tenant, DAY)
    await forget_marks(database, marks[key])
    assert report.rows == 3
    assert await mine() == []
    assert await read_marks(database, [key]) == {}
