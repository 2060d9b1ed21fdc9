"""A day's file holds the tenant's day, exactly, whatever happens while it is written."""

import asyncio
import json
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.lake.columns import DAILY_COUNTS, SIGNALS, parquet_schema
from fleetprompt.lake.days import hold_day, write_daily_counts, write_signals
from fleetprompt.lake.layout import day_file, replacing
from fleetprompt.tenants.service import Tenant

Insert = Callable[..., Awaitable[None]]
DAY = date(2026, 3, 8)
NOON = datetime(2026, 3, 8, 12, tzinfo=UTC)


async def test_a_day_is_half_open_and_holds_its_own_tenant_alone(
    database: Database,
    lake: Path,
    insert: Insert,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    one, other = await new_tenant(), await new_tenant()
    await insert(one, datetime(2026, 3, 8, tzinfo=UTC), kind="a.first.instant")
    await insert(one, datetime(2026, 3, 8, 23, 59, 59, 999999, tzinfo=UTC), kind="a.last.instant")
    await insert(one, datetime(2026, 3, 9, tzinfo=UTC), kind="a.next.day")
    await insert(other, NOON, kind="b.other.tenant")

    report = await write_signals(database, lake, one, DAY)

    table = pq.read_table(report.path, partitioning=None)
    assert table["type"].to_pylist() == ["a.first.instant", "a.last.instant"]
    assert table.schema.equals(parquet_schema(SIGNALS), check_metadata=False)
    assert report.rows == 2
    assert report.bytes == report.path.stat().st_size
    assert report.by_hour[0] == report.by_hour[23] == 1
    assert sum(report.by_hour) == 2
    assert str(report.path) == f"{lake}/signals/tenant={one.slug}/day=2026-03-08/part.parquet"


async def test_values_come_back_as_they_went_in(
    database: Database, lake: Path, insert: Insert, tenant: Tenant
) -> None:
    data = {"text": "Grüße 🚀 \" ' \\ \n", "number": 12345678901234567890, "nested": [{"a": None}]}
    await insert(tenant, NOON, data=json.dumps(data))
    report = await write_signals(database, lake, tenant, DAY)
    [row] = pq.read_table(report.path, partitioning=None).to_pylist()
    assert json.loads(row["data"]) == data
    assert row["occurred_at"] == NOON
    assert row["subject_id"] is None


async def test_late_rows_are_those_stored_after_the_day(
    database: Database, lake: Path, insert: Insert, tenant: Tenant
) -> None:
    await insert(tenant, NOON, many=3, inserted_at=NOON + timedelta(minutes=1))
    await insert(tenant, NOON, many=2, inserted_at=datetime(2026, 3, 9, tzinfo=UTC))
    report = await write_signals(database, lake, tenant, DAY)
    assert (report.rows, report.late_rows) == (5, 2)


async def test_a_day_without_signals_is_a_file_without_rows(
    database: Database, lake: Path, tenant: Tenant
) -> None:
    report = await write_signals(database, lake, tenant, DAY)
    counts = await write_daily_counts(database, lake, tenant, DAY)
    assert pq.read_metadata(report.path).num_rows == 0
    assert pq.read_metadata(counts.path).num_rows == 0
    assert (report.rows, counts.signals) == (0, 0)


async def test_counts_add_up_to_the_signals(
    database: Database, lake: Path, insert: Insert, tenant: Tenant
) -> None:
    await insert(tenant, NOON, kind="x.often", many=7)
    await insert(tenant, NOON + timedelta(hours=1), kind="x.often")
    await insert(tenant, NOON, kind="x.once")
    signals = await write_signals(database, lake, tenant, DAY)
    counts = await write_daily_counts(database, lake, tenant, DAY)
    table = pq.read_table(counts.path, partitioning=None)
    assert table.schema.equals(parquet_schema(DAILY_COUNTS), check_metadata=False)
    assert dict(zip(table["type"].to_pylist(), table["signals"].to_pylist(), strict=True)) == {
        "x.often": 8,
        "x.once": 1,
    }
    assert counts.signals == signals.rows == sum(signals.by_type.values())
    assert table["last_occurred_at"].to_pylist()[0] == NOON + timedelta(hours=1)


async def test_counts_before_the_signals_are_refused(
    database: Database, lake: Path, tenant: Tenant
) -> None:
    with pytest.raises(FileNotFoundError):
        await write_daily_counts(database, lake, tenant, DAY)


def test_readers_see_the_old_file_until_the_new_one_is_whole(lake: Path) -> None:
    target = day_file(lake, SIGNALS, "acme", DAY)
    with replacing(target) as unfinished:
        unfinished.write_text("old")
    with pytest.raises(OSError, match="disk"):
        _fail_midway(target)
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]
    # What a killed writer leaves matches no reader's pattern, and the next writer clears it.
    (target.parent / "0123.unfinished").write_text("left")
    with replacing(target) as unfinished:
        unfinished.write_text("new")
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def _fail_midway(target: Path) -> None:
    with replacing(target) as unfinished:
        unfinished.write_text("half of the new")
        assert target.read_text() == "old"
        raise OSError("disk full")


@pytest.mark.parametrize("slug", ["../other", "a/b", "a|b", "", "*", "A"])
def test_no_path_leaves_the_tenants_folder(lake: Path, slug: str) -> None:
    with pytest.raises(InvalidError):
        day_file(lake, SIGNALS, slug, DAY)


async def test_a_deleted_tenant_gets_no_folder(database: Database, lake: Path) -> None:
    gone = Tenant(new_id(), "never-was", "org_never-was")
    with pytest.raises(NotFoundError):
        await write_signals(database, lake, gone, DAY)
    assert not await asyncio.to_thread(lake.exists)


async def test_a_slow_writer_cannot_put_older_content_over_newer(
    database: Database, lake: Path, insert: Insert, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as holder:
        await hold_day(holder, tenant.schema, DAY)
        waiting = asyncio.create_task(write_signals(database, lake, tenant, DAY))
        for _ in range(200):
            async with database.platform() as session:
                blocked = await session.scalar(
                    text(
                        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                    )
                )
            if blocked:
                break
            await asyncio.sleep(0.01)
        assert blocked == 1
        await insert(tenant, NOON)
        assert not waiting.done()
    assert (await waiting).rows == 1


async def test_memory_does_not_grow_with_the_day(
    database: Database, lake: Path, insert: Insert, tenant: Tenant
) -> None:
    import pyarrow as pa

    body = json.dumps({"text": "x" * 20_000})

    async def peak(rows: int) -> int:
        await insert(tenant, NOON, many=rows, data=body)
        tracemalloc.start()
        try:
            await write_signals(database, lake, tenant, DAY)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small = await peak(600)
    large = await peak(4_200)
    # 84 MB more of bodies; Python holds no more than the rows under way.
    assert large < small * 1.5
    # Arrow's own allocations are bounded by the row group, and given back.
    assert pa.default_memory_pool().bytes_allocated() < 8 * 1024 * 1024
