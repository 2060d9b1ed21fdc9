"""The directive ``webchat.escalate_to_mattermost``: one post for each conversation and place.

Written when it is posted, from what the conversation holds then; the ledger lets it out once.
"""

from hashlib import sha256
from typing import Annotated, Any
from uuid import UUID

from pydantic import StringConstraints
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt import secrets
from fleetprompt.directives.approvals.notices.setting import PROVIDER, Connection, connection_of
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.types import DirectiveParams, Failure
from fleetprompt.errors import NotFoundError
from fleetprompt.outbound import ledger
from fleetprompt.outbound.delivery import Delivery
from fleetprompt.outbound.transports.mattermost import (
    WebhookMessage,
    WebhookWay,
    parse_webhook_url,
    plain,
)
from fleetprompt.packages.models import Installation
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.cipher import SealError
from fleetprompt.webchat.escalation import mattermost_key
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.messages import history
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.registration import get_site
from fleetprompt.webchat.site_settings import SiteSettings
from fleetprompt.webchat.telling import tell

_SHOWN = 300  # characters of the first message
_NOT_CONNECTED = (
    "The installation that conversations are posted with is not connected to Mattermost. Connect it "
    "again, or choose another one."
)


class EscalateParams(DirectiveParams):
    """Which conversation, and with which installation's connection; without a channel, the webhook's own."""

    conversation_id: UUID
    installation_id: UUID
    channel: Annotated[str, StringConstraints(max_length=64)] | None = None


async def escalate(context: HandlerContext, params: EscalateParams) -> dict[str, Any]:
    """Post the conversation unless it is there already."""
    schema = context.tenant.schema
    async with context.database.tenant(schema) as session:
        conversation = await get_conversation(session, params.conversation_id)
        if conversation.status == "erased":
            return {"posted": False, "reason": "the conversation was erased"}
        connection = await _connection(session, params)
        site = await get_site(session, conversation.site_id)
        first = await history(session, conversation.id, 0, limit=1)
        shown = SiteSettings.model_validate(site.settings).content_in_signals
        text = _text(
            site.name, conversation, first[0] if first and shown else None, _link(context, params)
        )
    try:
        secret = await context.vault.open_credential(context.tenant, connection.credential_id)
    except (SealError, NotFoundError) as error:
        raise DirectiveFailed(
            "auth", f"The stored webhook cannot be used: {error.detail} Connect Mattermost again."
        ) from None
    url = parse_webhook_url(secret.reveal(), allow_plain_http=context.settings.allow_plain_http)
    intent = ledger.Intent(
        dedupe_key=mattermost_key(
            context.tenant, params.conversation_id, params.installation_id, params.channel
        ),
        provider=PROVIDER,
        destination=connection.destination,
        content_sha256=sha256(text.encode()).hexdigest(),
        correlation_id=context.directive.correlation_id,
        directive_id=context.directive.id,
        execution_id=context.execution.id,
    )

    async def posted(session: AsyncSession) -> None:
        await _tell(session, context.directive, "notified", destination=connection.destination)

    way = WebhookWay(context.http, url, WebhookMessage(text=text, channel=params.channel))
    patience = context.settings.absence_seconds
    await Delivery(context.database, schema, intent, way, posted, patience).deliver()
    return {"posted": True, "destination": connection.destination}


async def escalation_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: EscalateParams,
    failure: Failure,
) -> None:
    """Tell that a conversation did not reach the team, or that nobody knows whether it did."""
    await _tell(
        session,
        directive,
        "failed",
        state=failure.state,
        error_kind=failure.error_kind,
        error_message=failure.message,
    )


async def _tell(session: AsyncSession, directive: ClaimedDirective, what: str, **data: str) -> None:
    conversation = await get_conversation(session, UUID(directive.params["conversation_id"]))
    await tell(
        session,
        f"escalation.{what}",
        conversation,
        {"directive_id": str(directive.id), "to": PROVIDER, **data},
        dedupe_key=f"webchat_escalation_{what}:{directive.id}",
        causation_id=f"directive:{directive.id}",
    )


async def _connection(session: AsyncSession, params: EscalateParams) -> Connection:
    installation = await session.get(Installation, params.installation_id)
    if installation is not None:
        found = await connection_of(session, installation, params.channel)
        if found is not None:
            return found
    raise DirectiveFailed("auth", _NOT_CONNECTED)


def _link(context: HandlerContext, params: EscalateParams) -> str:
    return f"{context.settings.api_url}/support/webchat/conversations/{params.conversation_id}"


def _text(site: str, conversation: ChatConversation, first: ChatMessage | None, link: str) -> str:
    """What visitors chose, names, addresses and words, is plain text in it: no mention and no link works."""
    lines = [f"**Website chat**: somebody writes on {plain(site)}."]
    if first is not None:
        who = conversation.visitor_name or conversation.visitor_email
        said = plain(secrets.redact(first.content or ""), _SHOWN)
        lines.append(f"> {plain(who)}: {said}" if who else f"> {said}")
    lines.append(f"[Open the conversation]({link})")
    return "\n\n".join(lines)
