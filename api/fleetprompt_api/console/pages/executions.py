"""Executions: what ran here and what agents report, and one with its log."""

from uuid import UUID

from starlette.responses import Response

from fleetprompt.errors import NotFoundError
from fleetprompt.executions import reported, schemas, service
from fleetprompt.executions.models import Execution
from fleetprompt.tenants.keys import Scope
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router
from fleetprompt_api.console.page import address_with, render

routes = page_router()

STATES = ("requested", "running", "completed", "failed", "cancelled")
_PAGE = 50
_LOG_LINES = 500
_LONGEST = 256


@routes.api_route("/executions", methods=LOOKING)
async def read_executions(
    visitor: Visitor,
    platform: Platform,
    state: str = "",
    kind: str = "",
    installation_id: UUID | None = None,
    before: UUID | None = None,
) -> Response:
    """Executions of one state and kind or of all, newest first."""
    visitor.identity.require(Scope.EXECUTIONS_READ)
    chosen = state if state in STATES else None
    wanted = kind.strip()[:_LONGEST].replace("\x00", "") or None
    found: list[Execution | schemas.ExecutionView] = []
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        found += await service.list_executions(
            session,
            kind=wanted,
            state=chosen,
            installation_id=installation_id,
            before=before,
            limit=_PAGE,
        )
        if installation_id is None:
            found += await reported.list_reported(
                session, kind=wanted, state=chosen, before=before, limit=_PAGE
            )
    shown = sorted(found, key=lambda one: one.id, reverse=True)[:_PAGE]
    kept = {"kind": wanted, "installation_id": installation_id}
    return render(
        "executions.html",
        visitor=visitor,
        here="Executions",
        now=platform.clock(),
        executions=shown,
        states=STATES,
        state=chosen,
        kind=wanted or "",
        installation_id=installation_id,
        tabs={
            one: address_with("/console/executions", state=one, **kept) for one in (None, *STATES)
        },
        older=address_with("/console/executions", state=chosen, before=shown[-1].id, **kept)
        if len(shown) == _PAGE
        else None,
    )


@routes.api_route("/executions/{execution_id}", methods=LOOKING)
async def read_execution(
    execution_id: UUID, visitor: Visitor, platform: Platform, log_after: int = 0
) -> Response:
    """One execution with its log and everything around it."""
    visitor.identity.require(Scope.EXECUTIONS_READ)
    execution: Execution | schemas.ExecutionView
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        try:
            execution = await service.get(session, execution_id)
        except NotFoundError:
            execution = await reported.get(session, execution_id)
        after = max(0, min(log_after, 2**63 - 1))
        lines = await service.logs(session, execution_id, after=after, limit=_LOG_LINES)
    return render(
        "execution.html",
        visitor=visitor,
        here="Executions",
        now=platform.clock(),
        execution=schemas.ExecutionView.model_validate(execution, from_attributes=True),
        lines=lines,
        more=lines[-1].id if len(lines) == _LOG_LINES else None,
        dagster_url=platform.settings.dagster_base_url,
    )
