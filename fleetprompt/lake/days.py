"""Writing one tenant's UTC day from PostgreSQL into the lake, in bounded memory."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import SIGNALS, parquet_options, parquet_schema
from fleetprompt.lake.counts import write_counts
from fleetprompt.lake.kept import STORED, Row, Rows, merged, rows_of_file_alone
from fleetprompt.lake.layout import day_file, replacing
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.removed import removed_day
from fleetprompt.lake.typed import typed_columns
from fleetprompt.tenants.service import Tenant

if TYPE_CHECKING:
    import pyarrow as pa

# Rows in one round trip: at 64 KiB a signal, the most that is held of the cursor is 32 MiB.
_FETCH_ROWS = 512
# A row group is closed at whichever comes first.
GROUP_ROWS = 131_072
_GROUP_BYTES = 32 * 1024 * 1024
_MOST_DOLLARS = 1e9

# One writer at a time for a tenant's day. Without it, a slow writer that read first could rename its
# older content over a newer file whose marks are gone.
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_ROWS = text(
    "SELECT id::text, type, source, occurred_at, subject_type, subject_id, data::text AS data,"
    " metadata::text AS metadata, correlation_id, causation_id, dedupe_key, source_event_id, inserted_at"
    " FROM signals WHERE occurred_at >= :start AND occurred_at < :end ORDER BY occurred_at, id"
)


@dataclass(frozen=True, slots=True)
class DayReport:
    """What a day's file holds. ``late_rows`` were stored after the day had ended.

    ``failures_by_hour`` counts signals whose type ends in ``.failed``, ``cost_by_hour`` sums US dollars.
    """

    tenant: str
    day: date
    path: LakePath
    rows: int
    bytes: int
    late_rows: int
    by_hour: tuple[int, ...]
    by_type: dict[str, int] = field(repr=False)
    failures_by_hour: tuple[int, ...] = ()
    cost_by_hour: tuple[float, ...] = ()
    first_occurred_at: datetime | None = None
    last_occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CountsReport:
    """What a day's file of counts holds."""

    tenant: str
    day: date
    path: LakePath
    rows: int
    bytes: int
    signals: int
    preview: tuple[tuple[str, str, int], ...] = field(repr=False)


def utc_day(day: date) -> tuple[datetime, datetime]:
    """The half-open stretch of time that is this day in UTC."""
    start = datetime.combine(day, time.min, UTC)
    return start, start + timedelta(days=1)


async def hold_day(session: AsyncSession, schema: str, day: date) -> None:
    """Wait until nobody else writes this tenant's day, and keep others away until the commit."""
    await session.execute(_LOCK, {"name": f"fleetprompt lake {schema} {day.isoformat()}"})


async def write_signals(database: Database, lake: LakePath, tenant: Tenant, day: date) -> DayReport:
    """Write the day's signals and put the file in the old one's place.

    Reads in the tenant's own transaction through a server-side cursor, so memory does not grow with
    the day. The file holds every signal committed before the call, and of those that retention has
    removed from PostgreSQL what the old file held. Raises what PostgreSQL or the file system raise, and
    ConflictError where such an old file is gone; what is there is then untouched.
    """
    start, end = utc_day(day)
    target = day_file(lake, SIGNALS, tenant.slug, day)
    async with database.tenant(tenant.schema) as session:
        await hold_day(session, tenant.schema, day)
        # The first read comes before the folder is made: it fails if the tenant is gone, and keeps a
        # deletion waiting until the file is in its place and can be deleted.
        removed = await removed_day(session, day)
        result = await session.stream(
            _ROWS.execution_options(stream_results=True, max_row_buffer=_FETCH_ROWS),
            {"start": start, "end": end},
        )
        stored: Rows = result.partitions(_FETCH_ROWS)
        if removed is None:
            everything = stored
        else:
            kept = rows_of_file_alone(session, lake, tenant, day, removed, rows=_FETCH_ROWS)
            everything = merged(kept, stored)
        tally = _Tally(end)
        try:
            with replacing(target) as unfinished, _parquet(unfinished, tally) as write:
                async for rows in everything:
                    await asyncio.to_thread(write, rows)
        finally:
            await result.close()
        return DayReport(
            tenant=tenant.slug,
            day=day,
            path=target,
            rows=tally.rows,
            bytes=target.stat().st_size,
            late_rows=tally.late,
            by_hour=tuple(tally.by_hour),
            failures_by_hour=tuple(tally.failures_by_hour),
            cost_by_hour=tuple(tally.cost_by_hour),
            by_type=dict(sorted(tally.by_type.items(), key=lambda item: (-item[1], item[0]))),
            first_occurred_at=tally.first,
            last_occurred_at=tally.last,
        )


async def write_daily_counts(
    database: Database, lake: LakePath, tenant: Tenant, day: date
) -> CountsReport:
    """Count the day's file of signals by type and source, and put the counts in the old ones' place.

    FileNotFoundError if the day's signals have not been written.
    """
    async with database.tenant(tenant.schema) as session:
        await hold_day(session, tenant.schema, day)
        path, rows, preview = await asyncio.to_thread(write_counts, lake, tenant.slug, day)
        return CountsReport(
            tenant=tenant.slug,
            day=day,
            path=path,
            rows=rows,
            bytes=path.stat().st_size,
            signals=sum(count for _, _, count in preview),
            preview=preview[:10],
        )


class _Tally:
    """What is counted while the rows pass by."""

    def __init__(self, end: datetime) -> None:
        self._end = end
        self.rows = 0
        self.late = 0
        self.by_hour = [0] * 24
        self.failures_by_hour = [0] * 24
        self.cost_by_hour = [0.0] * 24
        self.by_type: Counter[str] = Counter()
        self.first: datetime | None = None
        self.last: datetime | None = None

    def add(self, batch: "pa.RecordBatch") -> None:
        import pyarrow.compute as pc

        self.rows += batch.num_rows
        self.by_type.update(batch["type"].to_pylist())
        hours = pc.hour(batch["occurred_at"])
        failed = hours.filter(pc.ends_with(batch["type"], ".failed"))
        for counts, found in ((self.by_hour, hours), (self.failures_by_hour, failed)):
            for one in pc.value_counts(found).to_pylist():
                counts[one["values"]] += one["counts"]
        costs = batch["cost_usd"]
        if costs.null_count < batch.num_rows:
            for hour, cost in zip(hours.to_pylist(), costs.to_pylist(), strict=True):
                # Producers say what it cost; what cannot be one is in the file, but in no sum.
                if cost is not None and 0 <= cost < _MOST_DOLLARS:
                    self.cost_by_hour[hour] += cost
        self.late += pc.sum(pc.greater_equal(batch["inserted_at"], self._end)).as_py()
        self.first = self.first or batch["occurred_at"][0].as_py()
        self.last = batch["occurred_at"][-1].as_py()


@contextmanager
def _parquet(path: Path, tally: _Tally) -> Iterator[Callable[[Sequence[Row]], None]]:
    """A function that appends rows to a new Parquet file, in row groups of bounded size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(SIGNALS)
    with pq.ParquetWriter(path, schema, **parquet_options(SIGNALS, schema)) as writer:
        waiting: list[pa.RecordBatch] = []
        held_rows = held_bytes = 0

        def write(rows: Sequence[Row]) -> None:
            nonlocal held_rows, held_bytes
            columns: dict[str, Sequence[Any]] = dict(
                zip(STORED, zip(*rows, strict=True), strict=True)
            )
            columns.update(typed_columns(columns))
            batch = pa.RecordBatch.from_pydict(columns, schema=schema)
            tally.add(batch)
            waiting.append(batch)
            # Counted as they come: asking all that wait each time would take longer than the rest.
            held_rows += batch.num_rows
            held_bytes += batch.nbytes
            if held_bytes >= _GROUP_BYTES or held_rows >= GROUP_ROWS:
                flush()

        def flush() -> None:
            nonlocal held_rows, held_bytes
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()
                held_rows = held_bytes = 0

        yield write
        flush()
