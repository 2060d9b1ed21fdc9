"""Health: alive, ready to serve, and whether work is moving."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel
from sqlalchemy import text

from fleetprompt.db.migrate import head
from fleetprompt.directives.queue import peek
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt_api.auth import Platform
from fleetprompt_api.routing import router

routes = router("health", prefix="/health")

_REVISIONS = text(
    """
    SELECT (SELECT version_num FROM fleetprompt.alembic_version) AS platform,
           (SELECT count(*) FROM fleetprompt.organizations
            WHERE state = 'active' AND revision IS DISTINCT FROM :tenant_head) AS behind
    """
)
_OLDEST_SLOT = text(
    "SELECT min(due_at) FROM fleetprompt.schedule_slots WHERE state = 'planned' AND due_at <= :now"
)


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """PostgreSQL answers and is migrated; tenants behind are served 503 until they are, too."""

    status: Literal["ready"] = "ready"
    revision: str
    tenants_behind: int
    listening: bool


class Moving(BaseModel):
    """How long the oldest due work has waited, in seconds; null when nothing is due."""

    oldest_directive_seconds: float | None
    due_directives: int
    oldest_slot_seconds: float | None
    signals_waiting: int


@routes.get("/live")
async def live() -> Live:
    """Whether the process answers at all."""
    return Live()


@routes.get("/ready")
async def ready(platform: Platform) -> Ready:
    """Whether requests can be served: the database answers and has this program's revision."""
    async with platform.database.platform() as session:
        found = (await session.execute(_REVISIONS, {"tenant_head": head("tenant")})).one()
    if found.platform != head("platform"):
        raise DatabaseUnavailableError(
            "The database is not at this program's revision. Run `fleetprompt migrate`.",
            retry_after=5,
        )
    return Ready(
        revision=found.platform,
        tenants_behind=found.behind,
        listening=platform.listener.healthy,
    )


@routes.get("/moving")
async def moving(platform: Platform) -> Moving:
    """Whether what is due is being worked off."""
    now = platform.clock()
    due = await peek(platform.database, now)
    async with platform.database.platform() as session:
        slot: datetime | None = await session.scalar(_OLDEST_SLOT, {"now": now})
    oldest = min((one.oldest_due_at for one in due), default=None)
    return Moving(
        oldest_directive_seconds=_age(oldest, now),
        due_directives=sum(one.count for one in due),
        oldest_slot_seconds=_age(slot, now),
        signals_waiting=platform.writer.waiting,
    )


def _age(since: datetime | None, now: datetime) -> float | None:
    return None if since is None else round((now - since).total_seconds(), 3)
