"""Messages: stored once under the conversation's lock, numbered without gaps, told of in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import ConversationClosedError, MessageMismatchError
from fleetprompt.ids import new_id
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.conversations import check_consent, own_conversation
from fleetprompt.webchat.escalation import by_itself, notify_team
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.telling import message_data, message_key, tell

PAGE = 200


@dataclass(frozen=True, slots=True)
class Received:
    """A visitor's message as it is stored, and what came of it."""

    message: ChatMessage
    duplicate: bool
    asked: bool = False
    """Whether a directive was asked for, of which workers should hear after the commit."""


async def receive(
    session: AsyncSession, guest: Guest, conversation_id: UUID, client_message_id: UUID, text: str
) -> Received:
    """Store a visitor's message, or find it stored under this id already.

    The lock on the conversation's row makes the next number this message's, and commits come in the order
    of the numbers. A repeated request is looked up first, so that no state and no limit refuses it.
    """
    conversation = await own_conversation(session, guest, conversation_id, lock=True)
    stored = await session.scalar(
        select(ChatMessage).where(
            ChatMessage.conversation_id == conversation.id,
            ChatMessage.client_message_id == client_message_id,
        )
    )
    if stored is not None:
        if stored.content != text:
            raise MessageMismatchError
        return Received(stored, duplicate=True)
    if conversation.status != "open":
        raise ConversationClosedError
    site = guest.site
    check_consent(site, conversation.consent_version, conversation.language)
    await guest.admit_message(session, conversation.id)
    message = ChatMessage(
        id=new_id(),
        conversation_id=conversation.id,
        seq=conversation.last_seq + 1,
        role="visitor",
        content=text,
        client_message_id=client_message_id,
        context={},
        inserted_at=guest.now,
    )
    escalations = by_itself(site, conversation.id) if message.seq == 1 else []
    asked_for = {"escalations": [one.as_json() for one in escalations]} if escalations else {}
    message.signal_id = await tell(
        session,
        "message.received",
        conversation,
        {**message_data(message, with_content=site.personal_data.signals.words), **asked_for},
        dedupe_key=message_key(site.tenant.slug, site.id, conversation.id, client_message_id),
    )
    add_message(session, conversation, message)
    conversation.waiting_since = conversation.waiting_since or guest.now
    asked = await notify_team(session, site, conversation, message, escalations)
    return Received(message, duplicate=False, asked=asked)


def add_message(
    session: AsyncSession, conversation: ChatConversation, message: ChatMessage
) -> None:
    """Add a message that has the next number to a conversation whose row is locked."""
    conversation.last_seq = message.seq
    conversation.revision += 1
    conversation.updated_at = message.inserted_at
    session.add(message)


async def history(
    session: AsyncSession, conversation_id: UUID, after: int, limit: int = PAGE
) -> Sequence[ChatMessage]:
    """Messages above ``after``, lowest first."""
    found = await session.scalars(
        select(ChatMessage)
        .where(ChatMessage.conversation_id == conversation_id, ChatMessage.seq > after)
        .order_by(ChatMessage.seq)
        .limit(limit)
    )
    return found.all()
