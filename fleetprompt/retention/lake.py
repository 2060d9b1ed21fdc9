"""Deleting old files of the lake."""

import asyncio
from datetime import date

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import TABLES
from fleetprompt.lake.compaction import days_of
from fleetprompt.lake.days import hold_day
from fleetprompt.lake.layout import (
    day_file,
    days_with_files,
    month_file,
    months_with_files,
    remove_file,
)
from fleetprompt.lake.places import LakePath
from fleetprompt.tenants.service import Tenant

# Noted before the file goes, so that whoever writes the day later does not look for it.
_NOTE = text(
    "INSERT INTO lake_days (day, file_removed_at) VALUES (:day, now())"
    " ON CONFLICT (day) DO UPDATE SET file_removed_at = now(), changed_at = now()"
)


async def remove_files(database: Database, lake: LakePath, tenant: Tenant, first_kept: date) -> int:
    """Delete the tenant's files of days before ``first_kept``; of how many days.

    A signal that comes for such a day later makes a new file, which goes the next time.
    """
    own = await asyncio.to_thread(days_with_files, lake, tenant.slug)
    months = await asyncio.to_thread(months_with_files, lake, tenant.slug)
    # A month that is one file goes when all of it is old, and with it what came to its days since.
    old = [days for days in map(days_of, months) if days[-1] < first_kept]
    alone = {day for day in own if day < first_kept and day.replace(day=1) not in months}
    days = sorted(alone.union(*old))
    last_days = {month[-1] for month in old}
    for day in days:
        async with database.tenant(tenant.schema) as session:
            await hold_day(session, tenant.schema, day)
            await session.execute(_NOTE, {"day": day})
        async with database.tenant(tenant.schema) as session:
            await hold_day(session, tenant.schema, day)
            await asyncio.to_thread(_remove, lake, tenant.slug, day, whole_month=day in last_days)
    return len(days)


def _remove(lake: LakePath, slug: str, day: date, *, whole_month: bool) -> None:
    for table in TABLES:
        remove_file(day_file(lake, table, slug, day))
        if whole_month:
            remove_file(month_file(lake, table, slug, day))
