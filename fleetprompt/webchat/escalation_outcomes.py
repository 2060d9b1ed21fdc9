"""What every escalation shares, wherever it goes: what it says, and what is told of how it ended."""

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.types import Failure
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.escalation import PLACES, tell_created
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.telling import tell


async def first_words(session: AsyncSession, conversation: ChatConversation) -> str | None:
    """What the visitor wrote first; None where nothing was written or it was erased."""
    found: str | None = await session.scalar(
        select(ChatMessage.content)
        .where(ChatMessage.conversation_id == conversation.id, ChatMessage.role == "visitor")
        .order_by(ChatMessage.seq)
        .limit(1)
    )
    return found


def conversation_link(context: HandlerContext, conversation: ChatConversation) -> str:
    """The conversation's page for the team."""
    return f"{context.settings.api_url}/support/webchat/conversations/{conversation.id}"


async def tell_outcome(
    session: AsyncSession, directive: ClaimedDirective | Any, what: str, **data: str
) -> None:
    """Write ``webchat.escalation.<what>`` (``notified`` or ``failed``) of an escalation's directive, once."""
    conversation = await get_conversation(session, UUID(directive.params["conversation_id"]))
    # Told when it was asked for, unless a replay asked.
    await tell_created(session, conversation, directive)
    await tell(
        session,
        f"escalation.{what}",
        conversation,
        {"directive_id": str(directive.id), "to": PLACES[directive.type], **data},
        dedupe_key=f"webchat_escalation_{what}:{directive.id}",
        causation_id=f"directive:{directive.id}",
    )


async def escalation_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: object,
    failure: Failure,
) -> None:
    """Tell that a conversation did not reach the team, or that nobody knows whether it did."""
    await tell_outcome(
        session,
        directive,
        "failed",
        state=failure.state,
        error_kind=failure.error_kind,
        error_message=failure.message,
    )
