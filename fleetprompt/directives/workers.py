"""Who works directives off at this moment, by what workers say of themselves.

Dagster cannot tell that a run's process died or stands still (architecture §8); a worker that has not
been seen for a while is gone. Times are the database's.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import text

from fleetprompt.db.engine import Database

# Several beats: a process that is busy for a moment is not gone.
SEEN_WITHIN_SECONDS = 20.0
BEAT_SECONDS = 5.0

_JOIN = text(
    "WITH long_gone AS ("
    "  DELETE FROM fleetprompt.workers WHERE seen_at < now() - interval '1 day'"
    ") INSERT INTO fleetprompt.workers (owner) VALUES (:owner) ON CONFLICT (owner)"
    " DO UPDATE SET started_at = now(), seen_at = now(), retiring = false, left_at = NULL"
)
_BEAT = text("UPDATE fleetprompt.workers SET seen_at = now() WHERE owner = :owner")
_RETIRE = text("UPDATE fleetprompt.workers SET retiring = true WHERE owner = :owner")
_LEAVE = text("UPDATE fleetprompt.workers SET left_at = now() WHERE owner = :owner")
_KNOWN = text(
    "SELECT owner, started_at, CASE WHEN left_at IS NOT NULL THEN 'left'"
    "   WHEN seen_at <= now() - make_interval(secs => :seconds) THEN 'lost'"
    "   WHEN retiring THEN 'retiring' ELSE 'taking' END AS state,"
    " extract(epoch FROM now() - seen_at)::float8 AS unseen_seconds"
    " FROM fleetprompt.workers ORDER BY started_at"
)


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the last day.

    ``retiring`` means that it takes nothing more once another is there, ``left`` that it has ended in
    order, ``lost`` that it has not been seen lately and did not say that it leaves.
    """

    owner: str
    started_at: datetime
    state: Literal["taking", "retiring", "left", "lost"]
    unseen_seconds: float


async def join(database: Database, owner: str) -> None:
    """Tell that this worker takes directives from now on."""
    await database.statement(_JOIN, {"owner": owner})


async def beat(database: Database, owner: str) -> None:
    """Tell that this worker is alive."""
    await database.statement(_BEAT, {"owner": owner})


async def retire(database: Database, owner: str) -> None:
    """Ask for a successor."""
    await database.statement(_RETIRE, {"owner": owner})


async def leave(database: Database, owner: str) -> None:
    """Tell that this worker takes nothing more."""
    await database.statement(_LEAVE, {"owner": owner})


async def known_workers(database: Database) -> list[Worker]:
    """Workers of the last day, the oldest first."""
    rows = await database.statement(_KNOWN, {"seconds": SEEN_WITHIN_SECONDS})
    return [Worker(**row._mapping) for row in rows]
