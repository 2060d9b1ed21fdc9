"""Which tenants' days have changed since they were written.

Every commit of signals leaves a mark (tenant, day). Marks are read before the day is, and forgotten,
by their ids, only after the day's file is in its place and known to the operators' grid: whoever is
killed in between leaves them for the next one, and a mark that comes meanwhile stays.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import text

from fleetprompt.db.engine import Database

# A closed day is written again soon after a late signal; a burst is waited out.
CLOSED_DAY_SETTLES = timedelta(seconds=20)
# Today changes all the time. Writing it costs time and events in proportion to the tenants, so it is
# written less often the more of them change: at most one tenant in six seconds, on average.
TODAY_SETTLES = timedelta(minutes=2)
TODAY_SETTLES_AT_MOST = timedelta(hours=2)
SECONDS_FOR_EACH_TENANT = 6

_STALE = text(
    "SELECT o.slug, s.day, min(s.id) AS oldest_mark, min(s.marked_at) AS marked_at"
    " FROM fleetprompt.stale_partitions s"
    " JOIN fleetprompt.organizations o ON o.schema_name = s.tenant_schema AND o.state = 'active'"
    " GROUP BY o.slug, s.day ORDER BY min(s.marked_at), o.slug, s.day"
)
_MARKS = text(
    "SELECT s.id, o.slug, s.day FROM fleetprompt.stale_partitions s"
    " JOIN fleetprompt.organizations o ON o.schema_name = s.tenant_schema"
    " JOIN unnest(CAST(:slugs AS text[]), CAST(:days AS date[])) AS wanted (slug, day)"
    "   ON wanted.slug = o.slug AND wanted.day = s.day"
)
_FORGET = text("DELETE FROM fleetprompt.stale_partitions WHERE id = ANY(CAST(:ids AS bigint[]))")


@dataclass(frozen=True, slots=True)
class StaleDay:
    """A tenant's UTC day with marks; ``oldest_mark`` is the first mark's id, never used again."""

    tenant: str
    day: date
    oldest_mark: int
    marked_at: datetime


async def stale_days(database: Database) -> list[StaleDay]:
    """Every tenant's day that has marks, the longest waiting first. Only reads."""
    async with database.platform() as session:
        rows = await session.execute(_STALE)
        return [StaleDay(*row) for row in rows]


def settled(stale: Sequence[StaleDay], now: datetime) -> list[StaleDay]:
    """Those that have waited long enough to be worth writing, in the same order."""
    today = now.astimezone(UTC).date()
    open_days = sum(1 for each in stale if each.day >= today)
    open_for = min(
        max(TODAY_SETTLES, timedelta(seconds=SECONDS_FOR_EACH_TENANT * open_days)),
        TODAY_SETTLES_AT_MOST,
    )
    return [
        each
        for each in stale
        if now - each.marked_at >= (open_for if each.day >= today else CLOSED_DAY_SETTLES)
    ]


async def read_marks(
    database: Database, days: Iterable[tuple[str, date]]
) -> dict[tuple[str, date], list[int]]:
    """The ids of the marks that are there now, by tenant and day; days without marks are missing."""
    wanted = list(days)
    found: dict[tuple[str, date], list[int]] = {}
    async with database.platform() as session:
        rows = await session.execute(
            _MARKS, {"slugs": [slug for slug, _ in wanted], "days": [day for _, day in wanted]}
        )
        for mark, slug, day in rows:
            found.setdefault((slug, day), []).append(mark)
    return found


async def forget_marks(database: Database, marks: Iterable[int]) -> None:
    """Delete exactly these marks; what was marked since stays."""
    async with database.platform() as session:
        await session.execute(_FORGET, {"ids": list(marks)})
