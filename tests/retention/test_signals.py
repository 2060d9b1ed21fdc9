"""Retention removes exactly the signals that are due and in the lake, and nothing of them is lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, time, timedelta

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.errors import ConflictError
from fleetprompt.lake.audit import differences
from fleetprompt.lake.columns import DAILY_COUNTS, SIGNALS
from fleetprompt.lake.compaction import compact
from fleetprompt.lake.layout import day_file
from fleetprompt.lake.reading import rows_in_day
from fleetprompt.lake.rebuild import rebuild_days
from fleetprompt.lake.stale import forget_marks, stale_days
from fleetprompt.retention.pace import Pace
from fleetprompt.retention.service import RetentionReport, apply_retention
from fleetprompt.retention.terms import set_term
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Producer, read_one
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.tenants.service import Tenant
from tests.retention.conftest import Insert

NOW = datetime(2026, 6, 15, 3, 30, tzinfo=UTC)
FIRST_KEPT = date(2026, 5, 16)


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


async def settle(database: Database, kept: Settings) -> None:
    """Write every stale day of this test's tenants, as the sensor and its run would."""
    stale = [(each.tenant, each.day) for each in await stale_days(database)]
    for day in await rebuild_days(database, kept.lake, stale):
        await forget_marks(database, day.marks)


async def in_postgresql(database: Database, tenant: Tenant) -> dict[date, int]:
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(
            text(
                "SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, count(*) AS many"
                " FROM signals GROUP BY 1"
            )
        )
        return {row.day: row.many for row in rows}


def in_lake(kept: Settings, tenant: Tenant, day: date) -> list[dict[str, object]]:
    path = day_file(kept.lake, SIGNALS, tenant.slug, day)
    rows: list[dict[str, object]] = pq.read_table(path, partitioning=None).to_pylist()
    return rows


async def test_exactly_what_is_due_is_removed_and_of_nobody_else(
    database: Database,
    kept: Settings,
    insert: Insert,
    pace: Pace,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    one, other = await new_tenant(), await new_tenant()
    last_due = FIRST_KEPT - timedelta(days=1)
    for tenant in (one, other):
        for day, many in ((last_due - timedelta(days=40), 4), (last_due, 7), (FIRST_KEPT, 5)):
            await insert(tenant, noon(day), many=many, inserted_at=noon(day))
        # Occurred long ago and came yesterday: kept as long as all else that came yesterday.
        await insert(tenant, noon(last_due), many=2, inserted_at=NOW - timedelta(days=1))
    await settle(database, kept)

    report = await apply_retention(database, kept, one, NOW, pace)

    assert report == RetentionReport(tenant=one.slug, signals=11)
    assert await in_postgresql(database, one) == {last_due: 2, FIRST_KEPT: 5}
    assert sum((await in_postgresql(database, other)).values()) == 18
    assert len(in_lake(kept, one, last_due)) == 9
    assert (await apply_retention(database, kept, one, NOW, pace)).signals == 0
    # When their time has come, the late ones go as well.
    later = NOW + timedelta(days=31)
    assert (await apply_retention(database, kept, one, later, pace)).signals == 7
    assert await in_postgresql(database, one) == {}
    assert await differences(database, kept.lake, one, [last_due, FIRST_KEPT]) == []


async def test_a_tenants_own_terms_hold_and_for_ever_means_never(
    database: Database, kept: Settings, insert: Insert, pace: Pace, tenant: Tenant
) -> None:
    day = FIRST_KEPT - timedelta(days=400)
    await insert(tenant, noon(day), inserted_at=noon(day))
    await settle(database, kept)
    async with database.platform() as session:
        await set_term(session, tenant, "signals", None, by="operator")
    assert (await apply_retention(database, kept, tenant, NOW, pace)).signals == 0
    async with database.platform() as session:
        await set_term(session, tenant, "signals", 430, by="operator")
    assert (await apply_retention(database, kept, tenant, NOW, pace)).signals == 0
    async with database.platform() as session:
        await set_term(session, tenant, "signals", 429, by="operator")
    assert (await apply_retention(database, kept, tenant, NOW, pace)).signals == 1


async def test_what_the_lake_does_not_hold_yet_is_kept_and_told(
    database: Database, kept: Settings, insert: Insert, pace: Pace, tenant: Tenant
) -> None:
    without, marked = FIRST_KEPT - timedelta(days=3), FIRST_KEPT - timedelta(days=2)
    await insert(tenant, noon(marked), many=3, inserted_at=noon(marked))
    await settle(database, kept)
    await insert(tenant, noon(without), many=2, inserted_at=noon(without))
    await insert(tenant, noon(marked), inserted_at=noon(marked))
    report = await apply_retention(database, kept, tenant, NOW, pace)
    assert (report.signals, report.days_not_in_lake) == (3, (without, marked))
    assert await in_postgresql(database, tenant) == {without: 2, marked: 1}
    await settle(database, kept)
    report = await apply_retention(database, kept, tenant, NOW, pace)
    assert (report.signals, report.days_not_in_lake) == (3, ())
    assert len(in_lake(kept, tenant, marked)) == 4


async def test_a_late_signal_of_a_removed_day_joins_its_file(
    database: Database, kept: Settings, insert: Insert, pace: Pace, tenant: Tenant
) -> None:
    """Trap 24: the day is not written again from the little that PostgreSQL has left of it."""
    day = FIRST_KEPT - timedelta(days=20)
    for hour in (1, 9, 9, 20):
        at = datetime.combine(day, time(hour), UTC)
        await insert(tenant, at, many=4, inserted_at=at, data=json.dumps({"at": hour}))
    await settle(database, kept)
    before = in_lake(kept, tenant, day)
    await apply_retention(database, kept, tenant, NOW, pace)
    assert await in_postgresql(database, tenant) == {}

    for hour in (0, 9, 23):
        await insert(tenant, datetime.combine(day, time(hour), UTC), kind="test.thing.late")
    [stale] = [each for each in await stale_days(database) if each.tenant == tenant.slug]
    [rebuilt] = await rebuild_days(database, kept.lake, [(stale.tenant, stale.day)])

    after = in_lake(kept, tenant, day)
    assert [row for row in after if row["type"] != "test.thing.late"] == before
    assert len(after) == 19
    assert after == sorted(after, key=lambda row: (row["occurred_at"], row["id"]))
    assert rebuilt.signals is not None
    assert rebuilt.counts is not None
    assert (rebuilt.signals.rows, rebuilt.signals.late_rows, rebuilt.counts.signals) == (19, 3, 19)
    assert await differences(database, kept.lake, tenant, [day]) == []
    # Written again without any change, and again: the same.
    await rebuild_days(database, kept.lake, [(tenant.slug, day)])
    assert in_lake(kept, tenant, day) == after


async def test_a_lost_file_is_never_replaced_by_what_is_left(
    database: Database, kept: Settings, insert: Insert, pace: Pace, tenant: Tenant
) -> None:
    day = FIRST_KEPT - timedelta(days=20)
    await insert(tenant, noon(day), many=4, inserted_at=noon(day))
    await settle(database, kept)
    await apply_retention(database, kept, tenant, NOW, pace)
    path = day_file(kept.lake, SIGNALS, tenant.slug, day)
    path.unlink()
    await insert(tenant, noon(day))
    [failed] = await rebuild_days(database, kept.lake, [(tenant.slug, day)])
    assert failed.error is not None
    assert "4 of its signals are in PostgreSQL no more" in failed.error
    assert "backup" in failed.error
    assert not path.exists()
    with pytest.raises(ConflictError):
        from fleetprompt.lake.days import write_signals

        await write_signals(database, kept.lake, tenant, day)


async def test_old_files_go_when_the_lakes_own_time_is_over(
    database: Database, kept: Settings, insert: Insert, pace: Pace, tenant: Tenant
) -> None:
    old, young = FIRST_KEPT - timedelta(days=100), FIRST_KEPT - timedelta(days=1)
    for day in (old, young):
        await insert(tenant, noon(day), many=4, inserted_at=noon(day))
    await settle(database, kept)
    limited = kept.model_copy(update={"lake_retention_days": 60})
    report = await apply_retention(database, limited, tenant, NOW, pace)
    assert (report.signals, report.lake_days) == (8, 1)
    for table in (SIGNALS, DAILY_COUNTS):
        assert not day_file(kept.lake, table, tenant.slug, old).exists()
        assert day_file(kept.lake, table, tenant.slug, young).exists()
    # A late one makes a file of its own, which the next night removes.
    await insert(tenant, noon(old))
    [rebuilt] = await rebuild_days(database, kept.lake, [(tenant.slug, old)])
    assert rebuilt.signals is not None
    assert rebuilt.signals.rows == 1
    assert await differences(database, kept.lake, tenant, [old]) == []
    assert (await apply_retention(database, limited, tenant, NOW, pace)).lake_days == 1


async def test_a_day_that_came_late_to_a_month_in_one_file_goes_with_its_month(
    database: Database, kept: Settings, insert: Insert, pace: Pace, tenant: Tenant
) -> None:
    """Else the month's older rows of that day would be read again, and nobody would erase in them."""
    first, last = date(2026, 4, 1), date(2026, 4, 30)
    for day in (first, last):
        await insert(tenant, noon(day), many=3, inserted_at=noon(day))
    await settle(database, kept)
    assert await compact(database, kept.lake, tenant, NOW.date()) > 0
    await insert(tenant, noon(first), inserted_at=noon(first))
    await settle(database, kept)
    # The first of April is older than these days, the last of it is not.
    limited = kept.model_copy(update={"lake_retention_days": 60})
    assert (await apply_retention(database, limited, tenant, NOW, pace)).lake_days == 0
    assert rows_in_day(kept.lake, SIGNALS, tenant.slug, first) == 4
    later = NOW + timedelta(days=30)
    assert (await apply_retention(database, limited, tenant, later, pace)).lake_days == 30
    assert [rows_in_day(kept.lake, SIGNALS, tenant.slug, day) for day in (first, last)] == [
        None
    ] * 2


async def test_signals_go_in_time_too_where_the_lake_keeps_its_files_for_less_long(
    database: Database, kept: Settings, insert: Insert, pace: Pace, tenant: Tenant
) -> None:
    """What the lake was told to give up does not have to be in it; nor is its lack a difference."""
    due, young = FIRST_KEPT - timedelta(days=1), NOW.date() - timedelta(days=6)
    for day in (due, young):
        await insert(tenant, noon(day), many=7, inserted_at=noon(day))
    await insert(tenant, noon(due), inserted_at=NOW - timedelta(days=1))
    await settle(database, kept)
    limited = kept.model_copy(update={"lake_retention_days": 5})

    first = await apply_retention(database, limited, tenant, NOW - timedelta(days=1), pace)
    assert (first.signals, first.lake_days) == (0, 1)
    assert await differences(database, kept.lake, tenant, [due]) == []

    report = await apply_retention(database, limited, tenant, NOW, pace)
    assert (report.signals, report.lake_days, report.days_not_in_lake) == (7, 1, ())
    assert await in_postgresql(database, tenant) == {due: 1, young: 7}
    assert await differences(database, kept.lake, tenant, [due]) == []
    assert await differences(database, kept.lake, tenant, [young]) == []


@pytest.fixture
async def writer(settings: Settings) -> AsyncIterator[SignalWriter]:
    made = SignalWriter(application_url(settings), settings)
    await made.start()
    yield made
    await made.close()


async def test_an_old_event_that_comes_back_is_still_a_duplicate(
    database: Database, kept: Settings, pace: Pace, tenant: Tenant, writer: SignalWriter
) -> None:
    """The hash of its key outlives it."""
    event = {
        "type": "email.inbound.received",
        "source": "edge:proton_mail",
        "occurred_at": "2026-01-06T09:00:00Z",
        "dedupe_key": "email_in:acme:c0ffee:INBOX:1:abc",
        "data": {},
    }

    async def send() -> tuple[str, object, object]:
        item = read_one(json.dumps(event).encode(), Producer())
        [stored] = await writer.submit(tenant.schema, [item])
        return stored.status, stored.id, stored.content

    status, first, _ = await send()
    assert status == "created"
    await settle(database, kept)
    report = await apply_retention(
        database, kept, tenant, system_clock() + timedelta(days=40), pace
    )
    assert report.signals == 1
    assert await send() == ("duplicate", first, "expired")
    assert await in_postgresql(database, tenant) == {}


async def test_under_ingest_nothing_new_is_touched_and_days_stay_exact(
    database: Database, kept: Settings, insert: Insert, tenant: Tenant
) -> None:
    """Signals of old and new days come while retention and the repair of days run."""
    days = [FIRST_KEPT - timedelta(days=ago) for ago in (1, 2, 3)]
    for day in days:
        await insert(tenant, noon(day), many=60, inserted_at=noon(day))
    await settle(database, kept)
    came = 0
    done = asyncio.Event()

    async def ingest() -> None:
        nonlocal came
        while not done.is_set():
            await insert(tenant, noon(days[came % 3]), many=2)
            await insert(tenant, noon(FIRST_KEPT + timedelta(days=came % 5)), many=1)
            came += 1

    async def repair() -> None:
        while not done.is_set():
            await settle(database, kept)

    async def retain() -> int:
        removed = 0
        while removed < 180:
            report = await apply_retention(database, kept, tenant, NOW, Pace(rows=7, rest=0.1))
            removed += report.signals
        done.set()
        return removed

    _, _, removed = await asyncio.gather(ingest(), repair(), retain())
    await settle(database, kept)
    assert removed == 180
    assert sum((await in_postgresql(database, tenant)).values()) == 3 * came
    assert sum(len(in_lake(kept, tenant, day)) for day in days) == 180 + 2 * came
    window = [days[-1] + timedelta(days=number) for number in range(9)]
    assert await differences(database, kept.lake, tenant, window) == []
