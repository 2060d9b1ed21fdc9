"""Removing signals from PostgreSQL that are old enough and that the lake's file holds.

Ids come from the file, never from a time alone, so that what is not in the lake is not removed. The day
is held meanwhile: nobody writes its file between the look at it and the commit. What was erased since
the file was written does not matter: the mark stays, and whoever writes the day again erases it there.
Only a day that the lake gave up itself, because it keeps its files for less long, goes by time.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.lake.days import hold_day, utc_day
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.reading import signal_ids
from fleetprompt.lake.removed import days_given_up
from fleetprompt.retention.pace import Pace
from fleetprompt.tenants.service import Tenant

# Both times are asked for: what occurred long ago but came yesterday is kept as long as all else.
_DUE_DAYS = text(
    "SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, count(*) AS signals FROM signals"
    " WHERE occurred_at < :cutoff AND inserted_at < :cutoff GROUP BY 1 ORDER BY 1"
)
_REMOVE = text(
    "DELETE FROM signals WHERE id = ANY(CAST(:ids AS uuid[])) AND inserted_at < :cutoff"
    " AND occurred_at >= :start AND occurred_at < :end"
)
_REMOVE_GIVEN_UP = text(
    "DELETE FROM signals WHERE id = ANY(ARRAY(SELECT id FROM signals WHERE occurred_at >= :start"
    " AND occurred_at < :end AND inserted_at < :cutoff LIMIT :rows)) AND inserted_at < :cutoff"
)
_NOTE = text(
    "INSERT INTO lake_days (day, signals_removed) VALUES (:day, :signals) ON CONFLICT (day)"
    " DO UPDATE SET signals_removed = lake_days.signals_removed + excluded.signals_removed,"
    " changed_at = now()"
)


@dataclass(frozen=True, slots=True)
class RemovedSignals:
    """How many were removed, and of which days how many were kept because no file holds them yet."""

    removed: int
    not_in_lake: dict[date, int]


async def remove_signals(
    database: Database, lake: LakePath, tenant: Tenant, first_kept: date, pace: Pace
) -> RemovedSignals:
    """Remove the tenant's signals of days before ``first_kept`` that were also stored before it.

    Safe to stop and to repeat at any point.
    """
    cutoff = datetime.combine(first_kept, time.min, UTC)
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(_DUE_DAYS, {"cutoff": cutoff})
        due: dict[date, int] = {row.day: row.signals for row in rows}
    removed, missing = 0, {}
    for day, signals in due.items():
        gone = await _remove_day(database, lake, tenant, day, cutoff, pace)
        removed += gone
        if gone < signals:
            missing[day] = signals - gone
    return RemovedSignals(removed, missing)


async def _remove_day(
    database: Database, lake: LakePath, tenant: Tenant, day: date, cutoff: datetime, pace: Pace
) -> int:
    start, end = utc_day(day)
    which: dict[str, object] = {"cutoff": cutoff, "start": start, "end": end}
    removed = 0
    batches = signal_ids(lake, tenant.slug, day, rows=pace.rows, stored_before=cutoff)
    while ids := await asyncio.to_thread(_next, batches):
        async with pace, database.tenant(tenant.schema) as session:
            await hold_day(session, tenant.schema, day)
            removed += await _remove(session, _REMOVE, which | {"ids": ids}, day)
    gone = pace.rows
    while gone == pace.rows:
        async with pace, database.tenant(tenant.schema) as session:
            await hold_day(session, tenant.schema, day)
            if not await days_given_up(session, [day]):
                break
            gone = await _remove(session, _REMOVE_GIVEN_UP, which | {"rows": pace.rows}, day)
            removed += gone
    return removed


async def _remove(
    session: AsyncSession, statement: TextClause, which: dict[str, object], day: date
) -> int:
    result = await session.execute(statement, which)
    gone: int = result.rowcount  # type: ignore[attr-defined] # of a DELETE it is a cursor's result
    if gone:
        await session.execute(_NOTE, {"day": day, "signals": gone})
    return gone


def _next(batches: Iterator[list[str]]) -> list[str] | None:
    return next(batches, None)
