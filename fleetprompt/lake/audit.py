"""Holding the lake against PostgreSQL: what differs, exactly, and what waits too long."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import SIGNALS
from fleetprompt.lake.days import hold_day, utc_day
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.reading import rows_in_day
from fleetprompt.lake.removed import days_given_up, removed_signals
from fleetprompt.lake.stale import StaleDay, stale_days
from fleetprompt.tenants.service import Tenant

_COUNTS = text(
    "SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, count(*) AS signals FROM signals"
    " WHERE occurred_at >= :start AND occurred_at < :end GROUP BY 1"
)
# One statement, so one snapshot: a signal and the mark of its commit are seen together or not at all.
_ONE_DAY = text(
    "SELECT (SELECT count(*) FROM signals WHERE occurred_at >= :start AND occurred_at < :end)"
    "  + coalesce((SELECT signals_removed FROM lake_days"
    "              WHERE day = :day AND file_removed_at IS NULL), 0),"
    " EXISTS (SELECT FROM fleetprompt.stale_partitions WHERE day = :day)"
)
_REPEATED_KEYS = text(
    "SELECT count(*) FROM (SELECT FROM signals WHERE dedupe_key IS NOT NULL"
    " AND occurred_at >= :start AND occurred_at < :end"
    " GROUP BY dedupe_key, source IN ('platform', 'dagster') HAVING count(*) > 1) AS repeated"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A tenant's day whose file is not what PostgreSQL holds, though nothing marks it stale."""

    tenant: str
    day: date
    in_postgresql: int
    in_lake: int | None


async def differences(
    database: Database, lake: LakePath, tenant: Tenant, days: Sequence[date]
) -> list[Difference]:
    """The tenant's days among ``days``, consecutive, whose row counts differ.

    Stale ones do not count, nor those whose files the lake gave up when their time was over. Days are
    first counted together; only one that differs is looked at again, alone, while nobody may write it.
    """
    start, end = utc_day(days[0])[0], utc_day(days[-1])[1]
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(_COUNTS, {"start": start, "end": end})
        counts: dict[date, int] = {row.day: row.signals for row in rows}
        for day, signals in (await removed_signals(session, days)).items():
            counts[day] = counts.get(day, 0) + signals
        given_up = await days_given_up(session, days)
    found = []
    for day in days:
        if day in given_up or counts.get(day, 0) == (
            await asyncio.to_thread(rows_in_day, lake, SIGNALS, tenant.slug, day) or 0
        ):
            continue
        start, end = utc_day(day)
        async with database.tenant(tenant.schema) as session:
            await hold_day(session, tenant.schema, day)
            in_lake = await asyncio.to_thread(rows_in_day, lake, SIGNALS, tenant.slug, day)
            [(in_postgresql, stale)] = await session.execute(
                _ONE_DAY, {"start": start, "end": end, "day": day}
            )
        if not stale and in_postgresql != (in_lake or 0):
            found.append(Difference(tenant.slug, day, in_postgresql, in_lake))
    return found


async def repeated_keys(database: Database, tenant: Tenant, days: Sequence[date]) -> int:
    """How many of the tenant's dedupe keys stand at more than one signal in these consecutive days."""
    async with database.tenant(tenant.schema) as session:
        found = await session.scalar(
            _REPEATED_KEYS, {"start": utc_day(days[0])[0], "end": utc_day(days[-1])[1]}
        )
    return int(found or 0)


async def overdue_days(
    database: Database, now: datetime, *, closed: timedelta, today: timedelta
) -> list[StaleDay]:
    """Days whose oldest mark waits longer than it should; ``today`` is the patience for open days."""
    current = now.date()
    return [
        each
        for each in await stale_days(database)
        if now - each.marked_at > (today if each.day >= current else closed)
    ]
