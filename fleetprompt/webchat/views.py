"""Conversations and messages as the widget is told of them (docs/reference/webchat-api.md)."""

from datetime import UTC, datetime
from typing import Any

from fleetprompt.webchat.models import ChatConversation, ChatMessage

View = dict[str, Any]


def conversation_view(conversation: ChatConversation) -> View:
    """What the visitor sees of a conversation beside its messages."""
    return {
        "id": str(conversation.id),
        "status": conversation.status,
        "last_seq": conversation.last_seq,
        "agent": conversation.agent,
        "contact": conversation.visitor_email is not None,
        "rated": conversation.rating is not None,
    }


def contact_view(conversation: ChatConversation) -> View:
    """Who the visitor said to be."""
    return {"name": conversation.visitor_name, "email": conversation.visitor_email}


def message_view(message: ChatMessage) -> View:
    """One message; text is plain text, null once it was erased."""
    return {
        "seq": message.seq,
        "id": str(message.id),
        "client_message_id": str(message.client_message_id) if message.client_message_id else None,
        "role": message.role,
        "author": message.author,
        "text": message.content,
        "at": instant(message.inserted_at),
    }


def instant(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
