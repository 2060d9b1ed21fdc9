"""Directives of connectors: fetched by long polling, kept by heartbeats, reported once.

1. The caller must be a connector; its tenant and its id come from the key alone.
2. Whatever is due is leased in a short transaction and answered at once.
3. Where nothing is due, the poll waits for the doorbell, without a database session. It ends when its
   time is over, when the process is told to stop, and when the key is no longer good.
"""

import asyncio
import time
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from fleetprompt.directives import delivery
from fleetprompt.directives.delivery import Connector, Outcome, Report
from fleetprompt.errors import ErrorKind, ForbiddenError, RateLimitedError
from fleetprompt.tenants.key_service import Identity
from fleetprompt.tenants.keys import Scope, fits_connector_id
from fleetprompt_api.auth import Allowed, Platform
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.signals_ingest import bearer_token
from fleetprompt_api.state import AppState
from fleetprompt_api.wire import Text, Wire

routes = router("connectors", prefix="/api/edge/v1")

_LONGEST_WAIT = 30  # seconds
_MOST_AT_ONCE = 50
_KEY_CHECK = 0.5  # seconds between looks at whether the key is still good
_MOST_POLLS = 100  # that wait, of one tenant in one process


class LeasedDirective(Wire):
    """A directive in the hands of this connector until `lease_expires_at`."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    type: str
    params: dict[str, Any]
    attempt: int
    lease_token: UUID
    lease_expires_at: datetime
    correlation_id: str | None
    created_at: datetime


class Held(BaseModel):
    """Which attempt speaks, and by which lease."""

    model_config = ConfigDict(extra="forbid")

    attempt: Annotated[int, Field(ge=1, lt=2**31)]
    lease_token: UUID


class Ended(Held):
    """How an attempt ended."""

    outcome: Outcome = Field(
        description=(
            "`failed` is final. `retry`: certainly nothing happened and another attempt may help; "
            "the failure's class and the attempts left decide. `unknown`: nobody can tell whether "
            "it took place."
        )
    )
    result: dict[str, Any] | None = Field(
        None, description=f"Of what succeeded; at most {delivery.RESULT_LIMIT} bytes, no secrets."
    )
    error_kind: ErrorKind | None = None
    error_message: Annotated[Text, Field(max_length=delivery.MESSAGE_LIMIT)] | None = None
    retry_after_seconds: Annotated[float, Field(ge=0, le=delivery.RETRY_AFTER_LIMIT)] | None = None


class ExtendedLease(Wire):
    """The lease goes on."""

    id: UUID
    attempt: int
    lease_expires_at: datetime


class ReportView(Wire):
    """What was reported first of an attempt, and what became of the directive."""

    model_config = ConfigDict(from_attributes=True)

    directive_id: UUID
    attempt: int
    outcome: Outcome
    state: Literal["succeeded", "failed", "unknown", "pending"]
    available_at: datetime | None = Field(description="When it may be fetched again, if `pending`.")
    reported_at: datetime


async def _connector(
    identity: Annotated[Identity, Depends(Allowed(Scope.DIRECTIVES_EXECUTE))],
) -> Connector:
    return _as_connector(identity)


def _as_connector(identity: Identity) -> Connector:
    """The connector of a key; ForbiddenError for any other kind of key."""
    name = identity.connector_id
    if identity.kind != "conn" or name is None or not fits_connector_id(name):
        raise ForbiddenError("Only a connector's own key fetches and reports directives.")
    return Connector(identity.tenant, name, identity.actor)


TheConnector = Annotated[Connector, Depends(_connector)]


@routes.get("/directives", responses=problems(429))
async def poll_directives(
    request: Request,
    connector: TheConnector,
    platform: Platform,
    status: Literal["pending"] = "pending",
    wait: Annotated[
        int, Query(ge=0, le=_LONGEST_WAIT, description="Seconds to wait while nothing is due.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_AT_ONCE)] = 10,
) -> list[LeasedDirective]:
    """Take the connector's due directives, each under a lease of a minute; empty if there are none."""
    schema = connector.tenant.schema
    if platform.doorbell.number_waiting(schema) >= _MOST_POLLS:
        raise RateLimitedError(
            f"{_MOST_POLLS} polls of this tenant's connectors wait already.", retry_after=5
        )
    until = time.monotonic() + wait
    # The bell is heard before the first look, so that nothing is missed between look and wait.
    with platform.doorbell.waiting(schema, connector.id) as rung:
        while not await request.is_disconnected():
            rung.clear()
            async with platform.database.tenant(schema) as session:
                found = await delivery.lease(session, connector, limit=limit)
            if found or not await _heard(platform, bearer_token(request), rung, until):
                return [LeasedDirective.model_validate(one) for one in found]
    # Nobody is there to work on anything any more, so nothing was taken.
    return []


async def _heard(platform: AppState, token: str, rung: asyncio.Event, until: float) -> bool:
    """Whether the bell rang before ``until`` (monotonic seconds), under a key that is still good."""
    waits = [asyncio.ensure_future(one.wait()) for one in (rung, platform.closing)]
    try:
        while (left := until - time.monotonic()) > 0:
            await asyncio.wait(
                waits, timeout=min(left, _KEY_CHECK), return_when=asyncio.FIRST_COMPLETED
            )
            if platform.closing.is_set():
                return False
            identity = await platform.key_ring.identify(token)
            identity.require(Scope.DIRECTIVES_EXECUTE)
            if rung.is_set():
                return True
        return False
    finally:
        for one in waits:
            one.cancel()


@routes.post("/directives/{directive_id}/ack", responses=problems(409))
async def extend_lease(
    directive_id: UUID, body: Held, connector: TheConnector, platform: Platform
) -> ExtendedLease:
    """Keep the lease of an attempt that is still at work; a lease that is gone is `stale-lease`."""
    async with platform.database.tenant(connector.tenant.schema) as session:
        expires_at = await delivery.extend(
            session, connector, directive_id, body.attempt, body.lease_token
        )
    return ExtendedLease(id=directive_id, attempt=body.attempt, lease_expires_at=expires_at)


@routes.post("/directives/{directive_id}/result", responses=problems(409))
async def report_result(
    directive_id: UUID, body: Ended, connector: TheConnector, platform: Platform
) -> ReportView:
    """End an attempt. The same report again answers the first one; another one is a conflict."""
    said = Report(
        outcome=body.outcome,
        result=body.result,
        error_kind=body.error_kind,
        error_message=body.error_message,
        retry_after=body.retry_after_seconds,
    )
    async with platform.database.tenant(connector.tenant.schema) as session:
        made = await delivery.report(
            session, connector, directive_id, body.attempt, body.lease_token, said
        )
    return ReportView.model_validate(made)
