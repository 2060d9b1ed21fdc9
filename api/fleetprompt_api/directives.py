"""Directives: asking for them, what became of them, and calling them off."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.directives import schemas, service
from fleetprompt.directives.approvals.service import waiting_approvals
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import ForbiddenError, InvalidError
from fleetprompt_api.auth import DirectivesRead, DirectivesWrite, Platform, actor_of
from fleetprompt_api.idempotency import Ids, NeededIdempotencyKey, once
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Cursor, Instant, Limit, Links, Page, Text, Wire, page, read_cursor

routes = router("directives")

MOST_PRIORITY = 100
FURTHEST_START = timedelta(days=365)
_LOCATION = {
    "Location": {
        "description": "The directive's address.",
        "schema": {"type": "string", "format": "uri-reference"},
        "required": True,
    }
}

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


class NewDirective(BaseModel):
    """What shall be done. Times are with an offset; without `available_at`, at once."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[
        Text, Field(max_length=128, description="One that `GET /directive-types` shows as open.")
    ]
    params: dict[str, Any]
    target: Annotated[
        Text | None, Field(description="The id of the connector that shall do it, for its types.")
    ] = None
    available_at: Annotated[
        Instant | None,
        Field(description=f"Not before; at most {FURTHEST_START.days} days from now."),
    ] = None
    expires_at: Annotated[
        Instant | None,
        Field(
            description="Begins no attempt from then on: cancelled unless it has started by then."
        ),
    ] = None
    priority: Annotated[
        int,
        Field(
            ge=-MOST_PRIORITY,
            le=MOST_PRIORITY,
            description="Higher goes first among what is due in the tenant.",
        ),
    ] = 0
    correlation_id: Annotated[Text | None, Field(description="The story that it is part of.")] = (
        None
    )
    causation_id: Annotated[Text | None, Field(description="The id of what caused it.")] = None


class TransitionView(Wire, schemas.TransitionView):
    """One change of a directive's state."""


class DirectiveView(Wire, schemas.DirectiveView):
    """A directive. `approval_id` is the approval that it waits for, null where it waits for none."""

    approval_id: UUID | None = None
    links: Links = Field(default_factory=dict)


class DirectiveDetails(DirectiveView):
    """A directive with every change of its state, in order."""

    transitions: list[TransitionView]


@routes.post(
    "/directives",
    status_code=202,
    response_description="Asked for now.",
    responses={
        **problems(409),
        200: {
            "model": DirectiveView,
            "description": "Asked for before under this key; as it is now.",
            "headers": _LOCATION,
        },
        202: {"headers": _LOCATION},
    },
)
async def request_directive(
    new: NewDirective,
    response: Response,
    caller: DirectivesWrite,
    platform: Platform,
    idempotency_key: NeededIdempotencyKey,
) -> DirectiveView:
    """Ask for something to be done. However often it is asked under one key: one directive."""
    kind = _open_type(platform.directive_types, new.type)
    actor = actor_of(caller)
    if not kind.allows(actor.role):
        raise ForbiddenError(f"{kind.name} may be asked for by: {', '.join(sorted(kind.roles))}.")
    params = service.check_params(kind, new.params)
    request = {"operation": "directive", **new.model_dump(mode="json"), "params": params}
    made = False
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            nonlocal made
            start = _start(new, platform.clock())
            digest = sha256(idempotency_key.encode()).hexdigest()
            directive, made = await service.request_directive(
                session,
                caller.tenant,
                kind.name,
                params,
                # Of a space of its own: nobody can take the key of what the platform will ask for.
                idempotency_key=f"dir:api:{caller.tenant.slug}:{digest}",
                actor=actor,
                correlation_id=new.correlation_id,
                causation_id=new.causation_id,
                available_at=start,
                expires_at=new.expires_at,
                priority=new.priority,
                target=new.target,
                types=platform.directive_types,
            )
            return {"directive_id": str(directive.id)}

        ids = await once(session, caller, idempotency_key, request, act)
        directive = await service.get(session, UUID(ids["directive_id"]))
        waiting = await waiting_approvals(session, [directive])
    if made:
        await notify_directives(platform.database)
    view = _view(directive, waiting.get(directive.id))
    response.status_code = 202 if made else 200
    response.headers["Location"] = view.links["self"]
    return view


@routes.get("/directives")
async def list_directives(
    request: Request,
    caller: DirectivesRead,
    platform: Platform,
    state: State | None = None,
    type_: Annotated[Text | None, Query(alias="type")] = None,
    correlation_id: Text | None = None,
    target: Text | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DirectiveView]:
    """Directives, newest first; `target` is `platform` or a connector's id."""
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.list_directives(
            session,
            state=state,
            kind=type_,
            correlation_id=correlation_id,
            target=target,
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


@routes.post("/directives/{directive_id}/cancel", responses=problems(409))
async def cancel_directive(
    directive_id: UUID, caller: DirectivesWrite, platform: Platform
) -> DirectiveView:
    """Call a directive off, with a role that may ask for its type; again, and nothing changes.

    A running attempt can no longer finish anything; what it did up to then is not undone.
    """
    async with platform.database.tenant(caller.tenant.schema) as session:
        directive = await service.cancel(
            session, caller.tenant, directive_id, actor_of(caller), types=platform.directive_types
        )
        return _view(directive, None)


def _open_type(types: Mapping[str, AnyDirectiveType], name: str) -> AnyDirectiveType:
    kind = types.get(name)
    if kind is not None and kind.over_http:
        return kind
    offered = ", ".join(sorted(one.name for one in types.values() if one.over_http))
    raise InvalidError(
        "This is no directive type that may be asked for here."
        if kind is None
        else f"{name} is not asked for here: it has an endpoint of its own or is the platform's.",
        errors=[{"pointer": "/type", "detail": f"one of: {offered or 'none in this version'}"}],
    )


def _start(new: NewDirective, now: datetime) -> datetime | None:
    """When it may start at the earliest, None for at once; InvalidError for times in no order."""
    later = new.available_at if new.available_at and new.available_at > now else None
    errors = []
    if later is not None and later > now + FURTHEST_START:
        detail = f"at most {FURTHEST_START.days} days from now"
        errors.append({"pointer": "/available_at", "detail": detail})
    if new.expires_at is not None and new.expires_at <= (later or now):
        errors.append({"pointer": "/expires_at", "detail": "must be after available_at and now"})
    if errors:
        raise InvalidError("It could not be done at these times.", errors=errors)
    return later


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
