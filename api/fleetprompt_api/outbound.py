"""What an installation sent, from the ledger."""

from datetime import datetime
from uuid import UUID

from pydantic import ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from fleetprompt.executions.models import Execution
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.service import get_installation
from fleetprompt_api.auth import PackagesRead, Platform
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Cursor, Limit, Links, Page, Wire, page, read_cursor

routes = router("installations")


class OutboundMessageView(Wire):
    """One message; ``destination`` never holds the secret address, and the text is not kept.

    ``proof`` says how it is known that it was posted: by the ``answer``, or because it was seen there
    (``read_back``). ``permalink`` leads to it where it is known.
    """

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    dedupe_key: str
    provider: str
    destination: str
    state: str
    content_sha256: str
    attempt: int
    sending_at: datetime | None
    settled_at: datetime | None
    retry_after: datetime | None
    remote_id: str | None
    permalink: str | None
    proof: str | None
    resolution: str | None
    resolved_at: datetime | None
    error_kind: str | None
    error_message: str | None
    correlation_id: str | None
    directive_id: UUID | None
    execution_id: UUID | None
    created_at: datetime
    links: Links = Field(default_factory=dict)


@routes.get("/installations/{installation_id}/outbound-messages")
async def list_outbound_messages(
    request: Request,
    installation_id: UUID,
    caller: PackagesRead,
    platform: Platform,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[OutboundMessageView]:
    """What its executions sent or tried to send, newest first."""
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        await get_installation(session, installation_id)
        found = await sent_by(session, installation_id, before=before, limit=limit)
    return page(request, found, limit, lambda one: one.id, _view)


async def sent_by(
    session: AsyncSession, installation_id: UUID, *, before: UUID | None = None, limit: int = 50
) -> list[OutboundMessage]:
    """What an installation's executions sent or tried to send, newest first."""
    query = (
        select(OutboundMessage)
        .join(Execution, Execution.id == OutboundMessage.execution_id)
        .where(Execution.installation_id == installation_id)
        .order_by(OutboundMessage.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(OutboundMessage.id < before)
    return list(await session.scalars(query))


def _view(message: OutboundMessage) -> OutboundMessageView:
    view = OutboundMessageView.model_validate(message)
    if message.execution_id is not None:
        view.links["execution"] = f"/api/v1/executions/{message.execution_id}"
    if message.resolved_by is not None:
        view.links["resolved_by"] = f"/api/v1/directives/{message.resolved_by}"
    if message.directive_id is not None:
        view.links["directive"] = f"/api/v1/directives/{message.directive_id}"
    return view
