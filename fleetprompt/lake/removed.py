"""UTC days of which PostgreSQL holds no longer everything: retention removed signals that the lake has.

Whoever writes such a day again keeps the rows of its file. Whoever compares the two adds what was removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

_ONE = text("SELECT signals_removed, file_removed_at FROM lake_days WHERE day = :day")
_SOME = text(
    "SELECT day, signals_removed FROM lake_days WHERE day = ANY(CAST(:days AS date[]))"
    " AND file_removed_at IS NULL"
)
_WITHOUT_FILE = text(
    "SELECT day FROM lake_days WHERE day = ANY(CAST(:days AS date[])) AND file_removed_at IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class RemovedDay:
    """How many of the day's signals PostgreSQL gave up, and when the file went too, if it did."""

    signals: int
    file_removed_at: datetime | None


async def removed_day(session: AsyncSession, day: date) -> RemovedDay | None:
    """What was removed of the tenant's day; None if PostgreSQL has all of it."""
    found = (await session.execute(_ONE, {"day": day})).one_or_none()
    return None if found is None else RemovedDay(*found)


async def removed_signals(session: AsyncSession, days: Sequence[date]) -> dict[date, int]:
    """How many signals of these days only the lake's files hold."""
    rows = await session.execute(_SOME, {"days": list(days)})
    return {row.day: row.signals_removed for row in rows}


async def days_given_up(session: AsyncSession, days: Sequence[date]) -> set[date]:
    """Those of these days whose files the lake gave up, though PostgreSQL may still hold their signals."""
    return set(await session.scalars(_WITHOUT_FILE, {"days": list(days)}))
