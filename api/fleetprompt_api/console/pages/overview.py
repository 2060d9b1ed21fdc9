"""What waits for somebody, what went wrong, and how the packages are."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from fleetprompt.directives import service as directives
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.executions import service as executions
from fleetprompt.executions.models import Execution
from fleetprompt.packages.models import Installation
from fleetprompt.packages.service import list_installations
from fleetprompt.schedules.slots import slots_of
from fleetprompt.tenants.keys import Scope
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router
from fleetprompt_api.console.page import render
from fleetprompt_api.console.people import people_in

routes = page_router()

_SHOWN = 5
_SLOTS = 8  # a week of days ahead and the last one


@dataclass(frozen=True, slots=True)
class PackageStatus:
    """An installation with its last execution and when the next is due."""

    installation: Installation
    last: Execution | None
    next_due: datetime | None


@routes.api_route("", methods=LOOKING)
async def read_overview(visitor: Visitor, platform: Platform) -> Response:
    """The first page."""
    identity = visitor.identity
    identity.require(Scope.DIRECTIVES_READ)
    identity.require(Scope.PACKAGES_READ)
    identity.require(Scope.EXECUTIONS_READ)
    async with platform.database.tenant(identity.tenant.schema) as session:
        waiting = await approvals.list_approvals(session, state="waiting", limit=_SHOWN + 1)
        troubled = [
            one
            for state in ("failed", "unknown")
            for one in await directives.list_directives(session, state=state, limit=_SHOWN)
        ]
        packages = [await _status(session, one) for one in await list_installations(session)]
    troubled = sorted(troubled, key=lambda one: one.id, reverse=True)[:_SHOWN]
    people = await people_in(
        platform.database, identity.tenant, [one.proposed_by for one in waiting]
    )
    return render(
        "overview.html",
        visitor=visitor,
        here="Overview",
        now=platform.clock(),
        waiting=waiting[:_SHOWN],
        more_waiting=len(waiting) > _SHOWN,
        troubled=troubled,
        packages=packages,
        people=people,
    )


async def _status(session: AsyncSession, installation: Installation) -> PackageStatus:
    last = await executions.list_executions(session, installation_id=installation.id, limit=1)
    planned = [
        slot.due_at
        for slot in await slots_of(session, installation.id, limit=_SLOTS)
        if slot.state == "planned"
    ]
    return PackageStatus(installation, last[0] if last else None, min(planned, default=None))
