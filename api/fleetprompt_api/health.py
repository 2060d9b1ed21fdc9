"""Health: alive, ready to serve, and whether work is moving."""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import text
from starlette.responses import Response

from fleetprompt.db.migrate import head
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt.telemetry.moving import look
from fleetprompt.telemetry.process import PROCESS
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


class Live(BaseModel):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """PostgreSQL answers and is migrated; tenants behind are served 503 until they are, too."""

    status: Literal["ready"] = "ready"
    revision: str
    tenants_behind: int
    listening: bool


class Seen(BaseModel):
    """One thing that was looked at; ages in seconds. ``meaning`` says what to do where it is not ok."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    ok: bool
    seconds: float | None
    limit_seconds: float | None
    meaning: str


class Moving(BaseModel):
    """Whether what is due is being begun; ``stuck`` as soon as one check is not ok."""

    status: Literal["moving", "stuck"]
    checks: list[Seen]
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


@routes.get("/moving", responses={503: {"model": Moving, "description": "Something stands still."}})
async def moving(platform: Platform, response: Response) -> Moving:
    """Whether work moves: 503, and what to do, where something has been due for too long.

    Not for a load balancer: an API that is reached serves well while a daemon elsewhere stands still.
    """
    checks = [Seen.model_validate(one) for one in await look(platform.database, PROCESS)]
    moves = all(one.ok for one in checks)
    response.status_code = 200 if moves else 503
    return Moving(
        status="moving" if moves else "stuck",
        checks=checks,
        signals_waiting=platform.writer.waiting,
    )
