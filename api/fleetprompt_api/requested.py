"""The answer to everything that is done by a directive: 202, and where to see what becomes of it."""

from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives import service
from fleetprompt_api.idempotency import Ids
from fleetprompt_api.wire import Links


class Requested(BaseModel):
    """A directive was asked for; ``state`` is its state now."""

    directive_id: UUID
    state: str
    installation_id: UUID
    execution_id: UUID | None
    links: Links


async def answer(session: AsyncSession, ids: Ids) -> Requested:
    """From the ids of what was asked for, in the transaction that asked."""
    directive = await service.get(session, UUID(ids["directive_id"]))
    execution_id = ids.get("execution_id")
    links = {
        "directive": f"/api/v1/directives/{directive.id}",
        "installation": f"/api/v1/installations/{ids['installation_id']}",
        "executions": f"/api/v1/executions?directive_id={directive.id}",
    }
    if execution_id is not None:
        links["execution"] = f"/api/v1/executions/{execution_id}"
    return Requested(
        directive_id=directive.id,
        state=directive.state,
        installation_id=UUID(ids["installation_id"]),
        execution_id=UUID(execution_id) if execution_id else None,
        links=links,
    )
