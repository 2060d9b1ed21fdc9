"""The chat's signals, each written in the transaction whose fact it tells.

What visitors write may hold what looks like a secret; a signal holds it masked, the message as it is.
"""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt import secrets
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.webchat.models import ChatConversation, ChatMessage

SOURCE = "webchat"
SUBJECT = "webchat.conversation"


def correlation_of(conversation_id: UUID) -> str:
    """The story that everything about a conversation is part of."""
    return f"webchat:{conversation_id}"


def message_key(tenant: str, site_id: UUID, conversation_id: UUID, client_message_id: UUID) -> str:
    """The dedupe key of a visitor's message; ``tenant`` is its slug."""
    return f"webchat_msg:{tenant}:{site_id}:{conversation_id}:{client_message_id}"


async def tell(
    session: AsyncSession,
    kind: str,
    conversation: ChatConversation,
    data: dict[str, Any] | None = None,
    *,
    dedupe_key: str | None = None,
    causation_id: str | None = None,
) -> UUID:
    """Write ``webchat.<kind>`` about a conversation; the signal's id."""
    return await emit(
        session,
        NewSignal(
            type=f"webchat.{kind}",
            source=SOURCE,
            subject_type=SUBJECT,
            subject_id=str(conversation.id),
            correlation_id=correlation_of(conversation.id),
            causation_id=causation_id,
            dedupe_key=dedupe_key,
            data={
                "site_id": str(conversation.site_id),
                "conversation_id": str(conversation.id),
                **_masked(data or {}),
            },
        ),
    )


def message_data(message: ChatMessage, *, with_content: bool) -> dict[str, Any]:
    """What a signal holds of a message."""
    return {
        "message_id": str(message.id),
        "seq": message.seq,
        **(
            {"client_message_id": str(message.client_message_id)}
            if message.client_message_id
            else {}
        ),
        **({"text": message.content} if with_content else {}),
        **message.context,
    }


def _masked(data: dict[str, Any]) -> dict[str, Any]:
    return {
        name: secrets.redact(value) if isinstance(value, str) else value
        for name, value in data.items()
    }
