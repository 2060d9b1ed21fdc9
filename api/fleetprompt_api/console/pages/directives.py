"""Directives: what was asked for, what became of it attempt by attempt, and calling one off."""

from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fleetprompt.directives import service
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.types import directive_types
from fleetprompt.errors import ConflictError
from fleetprompt.executions import service as executions
from fleetprompt.sessions.service import SignedIn
from fleetprompt.tenants.keys import Scope
from fleetprompt_api.auth import Platform, actor_of
from fleetprompt_api.console.actions import shown_action
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router, problem_page
from fleetprompt_api.console.page import address_with, render
from fleetprompt_api.console.people import people_in

routes = page_router()

STATES = (
    *("awaiting_approval", "pending", "running", "succeeded", "failed", "unknown", "cancelled"),
)
_OPEN = frozenset({"requested", "awaiting_approval", "pending", "running"})
_PAGE = 50
_LOG_LINES = 200
_LONGEST = 256


@routes.api_route("/directives", methods=LOOKING)
async def read_directives(
    visitor: Visitor,
    platform: Platform,
    state: str = "",
    type: str = "",  # noqa: A002 - the form's word
    before: UUID | None = None,
) -> Response:
    """Directives of one state and type or of all, newest first."""
    identity = visitor.identity
    identity.require(Scope.DIRECTIVES_READ)
    chosen = state if state in STATES else None
    wanted = type.strip()[:_LONGEST].replace("\x00", "") or None
    async with platform.database.tenant(identity.tenant.schema) as session:
        found = await service.list_directives(
            session, state=chosen, kind=wanted, before=before, limit=_PAGE
        )
    return render(
        "directives.html",
        visitor=visitor,
        here="Directives",
        now=platform.clock(),
        directives=found,
        people=await people_in(platform.database, identity.tenant, [one.actor for one in found]),
        states=STATES,
        state=chosen,
        type=wanted or "",
        types=sorted(directive_types()),
        tabs={
            one: address_with("/console/directives", state=one, type=wanted)
            for one in (None, *STATES)
        },
        older=address_with("/console/directives", state=chosen, type=wanted, before=found[-1].id)
        if len(found) == _PAGE
        else None,
    )


@routes.api_route("/directives/{directive_id}", methods=LOOKING)
async def read_directive(directive_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """One directive with its transitions, approvals, executions and their logs."""
    tenant = visitor.identity.tenant
    visitor.identity.require(Scope.DIRECTIVES_READ)
    visitor.identity.require(Scope.EXECUTIONS_READ)
    async with platform.database.tenant(tenant.schema) as session:
        directive = await service.get(session, directive_id)
        transitions = await service.transitions(session, directive_id)
        ran = await executions.list_executions(session, directive_id=directive_id)
        logs = {one.id: await executions.logs(session, one.id, limit=_LOG_LINES) for one in ran}
        versions = await approvals.list_approvals(session, directive_id=directive_id)
        action = await shown_action(session, directive.type, directive.target, directive.params)
    named = [directive.actor, *(one.changed_by for one in transitions)]
    return render(
        "directive.html",
        visitor=visitor,
        here="Directives",
        now=platform.clock(),
        directive=directive,
        action=action,
        transitions=transitions,
        executions=ran,
        logs=logs,
        most_lines=_LOG_LINES,
        versions=versions,
        people=await people_in(platform.database, tenant, named),
        may_cancel=directive.state in _OPEN and _may_cancel(visitor, directive.type),
        dagster_url=platform.settings.dagster_base_url,
    )


@routes.post("/directives/{directive_id}/cancel")
async def cancel(
    request: Request, directive_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Call it off; what a running attempt did up to now is not undone."""
    identity = visitor.identity
    identity.require(Scope.APPROVALS_DECIDE, "member")
    address = f"/console/directives/{directive_id}"
    try:
        async with platform.database.tenant(identity.tenant.schema) as session:
            await service.cancel(session, identity.tenant, directive_id, actor_of(identity))
    except ConflictError as error:
        return problem_page(
            request, error, title="It is over already", links={"See what became of it": address}
        )
    return RedirectResponse(address, 303)


def _may_cancel(visitor: SignedIn, name: str) -> bool:
    kind = directive_types().get(name)
    allowed = kind is not None and visitor.identity.role in kind.roles
    return allowed and Scope.APPROVALS_DECIDE in visitor.identity.scopes
