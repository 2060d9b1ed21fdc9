"""The answer to what is done about the chat by a directive."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives import service
from fleetprompt.ids import new_id
from fleetprompt.tenants.key_service import Identity
from fleetprompt_api.auth import actor_of
from fleetprompt_api.idempotency import Ids, once
from fleetprompt_api.wire import Links


class Asked(BaseModel):
    """A directive was asked for; ``state`` is its state now."""

    directive_id: UUID
    state: str
    links: Links


async def ask(
    session: AsyncSession,
    caller: Identity,
    kind: str,
    params: Mapping[str, Any],
    idempotency_key: str | None,
    *,
    correlation_id: str | None = None,
    check: Callable[[], Awaitable[None]] | None = None,
) -> Asked:
    """Ask for a directive once under the request's key, and tell of it.

    ``check`` raises where it may not be asked for now; a repeated request is not checked again.
    """

    async def act() -> Ids:
        if check is not None:
            await check()
        directive, _ = await service.request_directive(
            session,
            caller.tenant,
            kind,
            params,
            idempotency_key=f"dir:{kind}:{caller.tenant.slug}:{new_id()}",
            actor=actor_of(caller),
            correlation_id=correlation_id,
        )
        return {"directive_id": str(directive.id)}

    request = {"operation": kind, "params": dict(params)}
    ids = await once(session, caller, idempotency_key, request, act)
    return await asked(session, UUID(ids["directive_id"]))


async def asked(session: AsyncSession, directive_id: UUID) -> Asked:
    """What became of a directive so far."""
    directive = await service.get(session, directive_id)
    return Asked(
        directive_id=directive.id,
        state=directive.state,
        links={"directive": f"/api/v1/directives/{directive.id}"},
    )
