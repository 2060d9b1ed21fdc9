"""Writing one tenant's UTC day from PostgreSQL into the lake, in bounded memory."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import SIGNALS, parquet_schema
from fleetprompt.lake.counts import write_counts
from fleetprompt.lake.kept import Rows, merged, rows_of_file_alone
from fleetprompt.lake.layout import day_file, replacing
from fleetprompt.lake.removed import removed_day
from fleetprompt.lake.typed import typed_columns
from fleetprompt.tenants.service import Tenant

# Rows in one round trip: at 64 KiB a signal, the most that is held of the cursor is 16 MiB.
_FETCH_ROWS = 256
# A row group is closed at whichever comes first.
_GROUP_ROWS = 65_536
_GROUP_BYTES = 32 * 1024 * 1024

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
    """What a day's file holds. ``late_rows`` were stored after the day had ended."""

    tenant: str
    day: date
    path: Path
    rows: int
    bytes: int
    late_rows: int
    by_hour: tuple[int, ...]
    by_type: dict[str, int] = field(repr=False)
    first_occurred_at: datetime | None = None
    last_occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CountsReport:
    """What a day's file of counts holds."""

    tenant: str
    day: date
    path: Path
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


async def write_signals(database: Database, lake: Path, tenant: Tenant, day: date) -> DayReport:
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
        stored: Rows = result.mappings().partitions(_FETCH_ROWS)
        if removed is None:
            everything = stored
        else:
            kept = rows_of_file_alone(session, lake, tenant, day, removed, rows=_FETCH_ROWS)
            everything = merged(kept, stored)
        tally = _Tally(end)
        try:
            with replacing(target) as unfinished, _parquet(unfinished) as write:
                async for rows in everything:
                    tally.add(rows)
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
            by_type=dict(sorted(tally.by_type.items(), key=lambda item: (-item[1], item[0]))),
            first_occurred_at=tally.first,
            last_occurred_at=tally.last,
        )


async def write_daily_counts(
    database: Database, lake: Path, tenant: Tenant, day: date
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
        self.by_type: Counter[str] = Counter()
        self.first: datetime | None = None
        self.last: datetime | None = None

    def add(self, rows: Any) -> None:
        self.rows += len(rows)
        for row in rows:
            self.by_type[row["type"]] += 1
            self.by_hour[row["occurred_at"].astimezone(UTC).hour] += 1
            self.late += row["inserted_at"] >= self._end
        self.first = self.first or rows[0]["occurred_at"]
        self.last = rows[-1]["occurred_at"]


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """A function that appends rows to a new Parquet file, in row groups of bounded size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = parquet_schema(SIGNALS)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        waiting: list[pa.RecordBatch] = []

        def write(rows: Any) -> None:
            typed = typed_columns(rows)
            columns = {
                name: typed[name] if name in typed else [row[name] for row in rows]
                for name in schema.names
            }
            waiting.append(pa.RecordBatch.from_pydict(columns, schema=schema))
            if (
                sum(batch.nbytes for batch in waiting) >= _GROUP_BYTES
                or sum(batch.num_rows for batch in waiting) >= _GROUP_ROWS
            ):
                flush()

        def flush() -> None:
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()

        yield write
        flush()
