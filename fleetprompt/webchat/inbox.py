"""Conversations as the team sees them: listed, read, marked as read, assigned."""

from collections.abc import Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import NotFoundError
from fleetprompt.webchat.models import ChatConversation
from fleetprompt.webchat.telling import tell

Status = Literal["open", "closed", "erased"]


async def get_conversation(
    session: AsyncSession, conversation_id: UUID, *, lock: bool = False
) -> ChatConversation:
    """The tenant's conversation of this id; NotFoundError otherwise."""
    found = await session.get(
        ChatConversation, conversation_id, with_for_update=lock, populate_existing=lock
    )
    if found is None:
        raise NotFoundError(f"There is no conversation {conversation_id}.")
    return found


async def list_conversations(
    session: AsyncSession,
    *,
    site_id: UUID | None = None,
    status: Status | None = None,
    assignee: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> Sequence[ChatConversation]:
    """The newest first, from behind ``before``."""
    query = select(ChatConversation).order_by(ChatConversation.id.desc()).limit(limit)
    for column, wanted in (
        (ChatConversation.site_id, site_id),
        (ChatConversation.status, status),
        (ChatConversation.assignee, assignee),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if before is not None:
        query = query.where(ChatConversation.id < before)
    return (await session.scalars(query)).all()


async def mark_read(session: AsyncSession, conversation: ChatConversation, up_to: int) -> None:
    """Note how far the team has read; it never goes back."""
    conversation.read_seq = max(conversation.read_seq, min(up_to, conversation.last_seq))
    await session.flush()


async def assign(
    session: AsyncSession,
    conversation: ChatConversation,
    assignee: str | None,
    *,
    by: str,
) -> None:
    """Give a conversation, whose row is locked, to somebody (``user:<id>``) or to nobody."""
    if conversation.assignee == assignee:
        return
    conversation.assignee = assignee
    conversation.revision += 1
    await tell(session, "conversation.assigned", conversation, {"assignee": assignee, "by": by})
