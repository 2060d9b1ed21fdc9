"""Who works directives off at this moment, by what workers say of themselves.

Dagster cannot tell that a run's process died or stands still (architecture §8); a worker that has not
been seen for a while is gone. Times are the database's.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database

# Several beats: a process that is busy for a moment is not gone.
SEEN_WITHIN_SECONDS = 20.0
BEAT_SECONDS = 5.0

_JOIN = text(
    "WITH long_gone AS ("
    "  DELETE FROM fleetprompt.workers WHERE seen_at < now() - interval '1 day'"
    ") INSERT INTO fleetprompt.workers (owner) VALUES (:owner) ON CONFLICT (owner)"
    " DO UPDATE SET started_at = now(), seen_at = now(), retiring = false"
)
_BEAT = text("UPDATE fleetprompt.workers SET seen_at = now() WHERE owner = :owner")
_RETIRE = text("UPDATE fleetprompt.workers SET retiring = true WHERE owner = :owner")
_LEAVE = text("DELETE FROM fleetprompt.workers WHERE owner = :owner")
_ALIVE = text(
    "SELECT owner, started_at, retiring FROM fleetprompt.workers"
    " WHERE seen_at > now() - make_interval(secs => :seconds) ORDER BY started_at"
)


@dataclass(frozen=True, slots=True)
class Worker:
    """One that was seen lately; ``retiring`` means that it takes nothing more once another is there."""

    owner: str
    started_at: datetime
    retiring: bool


async def join(database: Database, owner: str) -> None:
    """Tell that this worker takes directives from now on."""
    async with database.platform() as session:
        await session.execute(_JOIN, {"owner": owner})


async def beat(session: AsyncSession, owner: str) -> None:
    """Tell that this worker is alive."""
    await session.execute(_BEAT, {"owner": owner})


async def retire(database: Database, owner: str) -> None:
    """Ask for a successor."""
    async with database.platform() as session:
        await session.execute(_RETIRE, {"owner": owner})


async def leave(database: Database, owner: str) -> None:
    """Tell that this worker takes nothing more."""
    async with database.platform() as session:
        await session.execute(_LEAVE, {"owner": owner})


async def workers_alive(database: Database) -> list[Worker]:
    """Those seen lately, the oldest first."""
    async with database.platform() as session:
        rows = await session.execute(_ALIVE, {"seconds": SEEN_WITHIN_SECONDS})
        return [Worker(row.owner, row.started_at, row.retiring) for row in rows]
