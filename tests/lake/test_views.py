"""DuckDB reads the lake: every table, every tenant or one."""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fleetprompt.db.engine import Database
from fleetprompt.errors import InvalidError
from fleetprompt.lake.columns import CONVERSATION_DAYS, TABLES, parquet_schema
from fleetprompt.lake.days import write_daily_counts, write_signals
from fleetprompt.lake.layout import day_file, replacing
from fleetprompt.lake.views import open_lake
from fleetprompt.tenants.service import Tenant

Insert = Callable[..., Awaitable[None]]
DAY = date(2026, 3, 8)
NOON = datetime(2026, 3, 8, 12, tzinfo=UTC)


async def test_views_show_each_tenant_and_day(
    database: Database,
    tmp_path: Path,
    insert: Insert,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    lake = tmp_path / "operator's lake"
    one, other = await new_tenant(), await new_tenant()
    await insert(one, NOON, many=2, data='{"cost": 3}')
    await insert(other, NOON)
    for each in (one, other):
        await write_signals(database, lake, each, DAY)
        await write_daily_counts(database, lake, each, DAY)

    with open_lake(lake) as connection:
        rows = connection.sql(
            "SELECT tenant, day, count(*), sum((data->>'cost')::int) FROM signals GROUP BY ALL"
        ).fetchall()
        assert sorted(rows) == sorted([(one.slug, DAY, 2, 6), (other.slug, DAY, 1, None)])
        assert connection.sql("SELECT sum(signals) FROM daily_counts").fetchall() == [(3,)]
    with open_lake(lake, tenant=one.slug) as connection:
        assert connection.sql("SELECT DISTINCT tenant FROM signals").fetchall() == [(one.slug,)]


def test_an_empty_lake_has_empty_views_of_the_same_columns(lake: Path) -> None:
    with open_lake(lake) as connection:
        for table in TABLES:
            found = connection.sql(f'SELECT * FROM "{table.name}"')
            assert found.fetchall() == []
            assert found.columns == [*(column.name for column in table.columns), "tenant", "day"]


def test_a_conversation_of_several_days_is_one_row(lake: Path) -> None:
    """What happened on its days is summed up; its day is the first that the lake has."""
    schema = parquet_schema(CONVERSATION_DAYS)

    def put(day: date, *rows: tuple[str, int, int, int, int, int | None, int]) -> None:
        names = [name for name in schema.names if name != "site_id"]
        found = [dict(zip(names, row, strict=True)) | {"site_id": "shop"} for row in rows]
        with replacing(day_file(lake, CONVERSATION_DAYS, "acme", day)) as unfinished:
            pq.write_table(pa.Table.from_pylist(found, schema=schema), unfinished)

    put(DAY, ("long", 1, 0, 3, 0, None, 1), ("short", 1, 1, 1, 1, 900, 0))
    put(DAY + timedelta(days=1), ("long", 0, 0, 1, 2, 64_000, 0))
    put(DAY + timedelta(days=2), ("long", 0, 1, 0, 1, None, 1))
    with open_lake(lake, tenant="acme", locked=True) as connection:
        found = connection.sql("SELECT * FROM conversations ORDER BY conversation_id")
        assert found.columns == [
            *("conversation_id", "site_id", "started_on", "ended_on", "visitor_messages"),
            *("replies", "first_response_ms", "escalations", "tenant", "day"),
        ]
        assert found.fetchall() == [
            ("long", "shop", DAY, DAY + timedelta(days=2), 4, 3, 64_000, 2, "acme", DAY),
            ("short", "shop", DAY, DAY, 1, 1, 900, 0, "acme", DAY),
        ]


@pytest.mark.parametrize("slug", ["*", "a'--", "../x"])
def test_a_hostile_slug_opens_nothing(lake: Path, slug: str) -> None:
    with pytest.raises(InvalidError):
        open_lake(lake, tenant=slug)
