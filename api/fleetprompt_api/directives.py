"""Directives: what was asked for, and what became of it."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Query
from pydantic import Field
from starlette.requests import Request

from fleetprompt.directives import schemas, service
from fleetprompt.directives.approvals.service import waiting_approvals
from fleetprompt.directives.models import Directive
from fleetprompt_api.auth import DirectivesRead, Platform
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Cursor, Limit, Links, Page, Text, Wire, page, read_cursor

routes = router("directives")

State = Literal[
    "requested",
    "awaiting_approval",
    "pending",
    "running",
    "succeeded",
    "failed",
    "unknown",
    "cancelled",
]


class TransitionView(Wire, schemas.TransitionView):
    """One change of a directive's state."""


class DirectiveView(Wire, schemas.DirectiveView):
    """A directive. `approval_id` is the approval that it waits for, null where it waits for none."""

    approval_id: UUID | None = None
    links: Links = Field(default_factory=dict)


class DirectiveDetails(DirectiveView):
    """A directive with every change of its state, in order."""

    transitions: list[TransitionView]


@routes.get("/directives")
async def list_directives(
    request: Request,
    caller: DirectivesRead,
    platform: Platform,
    state: State | None = None,
    type_: Annotated[Text | None, Query(alias="type")] = None,
    correlation_id: Text | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DirectiveView]:
    """Directives, newest first."""
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.list_directives(
            session,
            state=state,
            kind=type_,
            correlation_id=correlation_id,
            before=before,
            limit=limit,
        )
        waiting = await waiting_approvals(session, found)
    return page(
        request, found, limit, lambda one: one.id, lambda one: _view(one, waiting.get(one.id))
    )


@routes.get("/directives/{directive_id}")
async def read_directive(
    directive_id: UUID, caller: DirectivesRead, platform: Platform
) -> DirectiveDetails:
    """One directive with its transitions."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        directive = await service.get(session, directive_id)
        changes = await service.transitions(session, directive_id)
        waiting = await waiting_approvals(session, [directive])
    return DirectiveDetails(
        **_view(directive, waiting.get(directive_id)).model_dump(),
        transitions=[TransitionView.model_validate(one) for one in changes],
    )


def _view(directive: Directive, approval_id: UUID | None) -> DirectiveView:
    view = DirectiveView.model_validate(directive)
    view.approval_id = approval_id
    view.links = {
        "self": f"/api/v1/directives/{directive.id}",
        "executions": f"/api/v1/executions?directive_id={directive.id}",
        "signals": f"/api/v1/signals?subject_type=directive&subject_id={directive.id}",
    }
    if approval_id is not None:
        view.links["approval"] = f"/api/v1/approvals/{approval_id}"
    return view
