"""Turning the day files of months that are long over into one file for each tenant, table and month.

The month's file takes its place first, then the day files go. A reader takes a day from its own file as
long as there is one, so nothing is ever read twice; a day that is written again later has a file of its own
until the next time.
"""

import asyncio
import calendar
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import TABLES, Table, parquet_options, parquet_schema
from fleetprompt.lake.days import GROUP_ROWS, hold_day
from fleetprompt.lake.layout import (
    day_file,
    days_with_files,
    month_file,
    replacing,
)
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.reading import DAY_COLUMN, day_rows
from fleetprompt.tenants.service import Tenant

if TYPE_CHECKING:
    import pyarrow as pa

# Days after its end until a month becomes one file: late signals have mostly come by then.
SETTLES = timedelta(days=35)
_ROWS = 8_192


async def compact(database: Database, lake: LakePath, tenant: Tenant, today: date) -> int:
    """Compact the tenant's months that ended more than ``SETTLES`` ago; how many day files went."""
    days = await asyncio.to_thread(days_with_files, lake, tenant.slug)
    months = sorted({day.replace(day=1) for day in days if _last_day(day) + SETTLES < today})
    gone = 0
    for month in months:
        async with database.tenant(tenant.schema) as session:
            for day in days_of(month):
                await hold_day(session, tenant.schema, day)
            for table in TABLES:
                gone += await asyncio.to_thread(_compact, lake, table, tenant.slug, month)
    return gone


def days_of(month: date) -> list[date]:
    """Every day of the month."""
    return [month.replace(day=number + 1) for number in range(_last_day(month).day)]


def _last_day(day: date) -> date:
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def _compact(lake: LakePath, table: Table, slug: str, month: date) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    own = [path for day in days_of(month) if (path := day_file(lake, table, slug, day)).exists()]
    if not own:
        return 0
    schema = parquet_schema(table).append(
        pa.field(DAY_COLUMN, pa.date32(), nullable=False, metadata={"description": "Its UTC day."})
    )
    with (
        replacing(month_file(lake, table, slug, month)) as unfinished,
        pq.ParquetWriter(unfinished, schema, **parquet_options(table, schema)) as writer,
    ):
        for group in _groups(_rows(lake, table, slug, days_of(month), schema)):
            writer.write_table(pa.Table.from_batches(group))
        writer.close()
    for path in own:
        path.unlink()
        path.parent.rmdir()
    return len(own)


def _rows(
    lake: LakePath, table: Table, slug: str, days: Iterable[date], schema: "pa.Schema"
) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa

    for day in days:
        try:
            for batch in day_rows(lake, table, slug, day, rows=_ROWS):
                columns = [
                    # What an older version did not write yet.
                    batch[name]
                    if name in batch.schema.names
                    else pa.nulls(batch.num_rows, schema.field(name).type)
                    for name in schema.names[:-1]
                ]
                columns.append(pa.array([day] * batch.num_rows, pa.date32()))
                yield pa.RecordBatch.from_arrays(columns, schema=schema)
        except FileNotFoundError:
            continue


def _groups(batches: Iterable["pa.RecordBatch"]) -> Iterator[list["pa.RecordBatch"]]:
    """Batches together in groups of bounded size; days stay in order, so that each is in few groups."""
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(one.num_rows for one in group) >= GROUP_ROWS:
            yield group
            group = []
    if group:
        yield group
