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
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import DirectiveParams
from fleetprompt.errors import NotFoundError
from fleetprompt.outbound import ledger
from fleetprompt.outbound.delivery import Delivery, OnPosted
from fleetprompt.outbound.transports.mattermost import (
    WebhookMessage,
    WebhookWay,
    parse_webhook_url,
    plain,
)
from fleetprompt.packages.models import Installation
from fleetprompt.vault.cipher import SealError
from fleetprompt.webchat.escalation import mattermost_key
from fleetprompt.webchat.escalation_outcomes import (
    conversation_link,
    first_words,
    tell_outcome,
)
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.models import ChatConversation
from fleetprompt.webchat.personal_data import Holding, personal_data_at
from fleetprompt.webchat.registration import get_site

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
    return await post_conversation(context, params, context.directive)


async def post_conversation(
    context: HandlerContext,
    params: EscalateParams,
    escalation: ClaimedDirective | Directive,
    word: UUID | None = None,
) -> dict[str, Any]:
    """Post the conversation for its escalation's directive; ``word`` as in ``Delivery``."""
    schema = context.tenant.schema
    async with context.database.tenant(schema) as session:
        conversation = await get_conversation(session, params.conversation_id)
        if conversation.status == "erased":
            return {"posted": False, "reason": "the conversation was erased"}
        connection = await connection_to(session, params.installation_id, params.channel)
        site = await get_site(session, conversation.site_id)
        first = await first_words(session, conversation)
        holding = (await personal_data_at(session, site)).notices
        link = conversation_link(context, conversation)
        text = _text(site.name, conversation, first, holding, link)
    key = mattermost_key(
        context.tenant, params.conversation_id, params.installation_id, params.channel
    )

    async def posted(session: AsyncSession) -> None:
        await tell_outcome(session, escalation, "notified", destination=connection.destination)

    await post_once(context, connection, key, text, params.channel, posted, word)
    return {"posted": True, "destination": connection.destination}


def _text(
    site: str, conversation: ChatConversation, first: str | None, holding: Holding, link: str
) -> str:
    """What visitors chose, names, addresses and words, is plain text in it: no mention and no link works."""
    lines = [f"**Website chat**: somebody writes on {plain(site)}."]
    if first is not None and holding.words:
        who = (conversation.visitor_name or conversation.visitor_email) if holding.contact else None
        said = plain(secrets.redact(first), _SHOWN)
        lines.append(f"> {plain(who)}: {said}" if who else f"> {said}")
    lines.append(f"[Open the conversation]({link})")
    return "\n\n".join(lines)


async def connection_to(
    session: AsyncSession, installation_id: UUID, channel: str | None
) -> Connection:
    """The Mattermost connection of an installation; DirectiveFailed where it has none."""
    installation = await session.get(Installation, installation_id)
    if installation is not None:
        found = await connection_of(session, installation, channel)
        if found is not None:
            return found
    raise DirectiveFailed("auth", _NOT_CONNECTED)


async def post_once(
    context: HandlerContext,
    connection: Connection,
    dedupe_key: str,
    text: str,
    channel: str | None,
    posted: OnPosted,
    word: UUID | None = None,
) -> None:
    """Post a text under its key; DirectiveFailed or OutcomeUnknown where it is not certainly there."""
    try:
        secret = await context.vault.open_credential(context.tenant, connection.credential_id)
    except (SealError, NotFoundError) as error:
        raise DirectiveFailed(
            "auth", f"The stored webhook cannot be used: {error.detail} Connect Mattermost again."
        ) from None
    url = parse_webhook_url(secret.reveal(), allow_plain_http=context.settings.allow_plain_http)
    intent = ledger.Intent(
        dedupe_key=dedupe_key,
        provider=PROVIDER,
        destination=connection.destination,
        content_sha256=sha256(text.encode()).hexdigest(),
        correlation_id=context.directive.correlation_id,
        directive_id=context.directive.id,
        execution_id=context.execution.id,
    )
    way = WebhookWay(context.http, url, WebhookMessage(text=text, channel=channel))
    patience = context.settings.absence_seconds
    schema = context.tenant.schema
    await Delivery(context.database, schema, intent, way, posted, patience, word).deliver()
