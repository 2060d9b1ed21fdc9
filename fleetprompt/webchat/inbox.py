"""Conversations as the team sees them: listed, read, marked as read, assigned; what was done about them."""

from collections.abc import Iterable, Sequence
from typing import Literal
from uuid import UUID

from sqlalchemy import and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.models import Directive
from fleetprompt.errors import NotFoundError
from fleetprompt.signals.models import Signal
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.telling import SUBJECT, correlation_of, tell

Status = Literal["open", "closed", "erased"]
MOST_AUDITED = 200


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


async def waiting_first(
    session: AsyncSession,
    *,
    site_id: UUID | None = None,
    status: Status | None = None,
    assignee: str | None = None,
    behind: UUID | None = None,
    limit: int = 50,
) -> Sequence[ChatConversation]:
    """Who has waited longest for the team first, then the newest; from behind ``behind``."""
    since, own = ChatConversation.waiting_since, ChatConversation.id
    query = select(ChatConversation).order_by(since.nulls_last(), own.desc()).limit(limit)
    for column, wanted in (
        (ChatConversation.site_id, site_id),
        (ChatConversation.status, status),
        (ChatConversation.assignee, assignee),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    last = None if behind is None else await session.get(ChatConversation, behind)
    if last is not None and last.waiting_since is not None:
        same = and_(since == last.waiting_since, own < last.id)
        query = query.where(or_(since > last.waiting_since, same, since.is_(None)))
    elif last is not None:
        query = query.where(since.is_(None), own < last.id)
    return (await session.scalars(query)).all()


async def number_waiting(session: AsyncSession) -> int:
    """How many visitors wait for the team's word."""
    query = select(func.count()).where(
        ChatConversation.status == "open", ChatConversation.waiting_since.is_not(None)
    )
    return await session.scalar(query) or 0


async def last_messages(
    session: AsyncSession, conversations: Iterable[ChatConversation]
) -> dict[UUID, ChatMessage]:
    """The last message of each conversation that has one."""
    ends = [(one.id, one.last_seq) for one in conversations if one.last_seq]
    found = await session.scalars(
        select(ChatMessage).where(tuple_(ChatMessage.conversation_id, ChatMessage.seq).in_(ends))
    )
    return {one.conversation_id: one for one in found}


async def audit_signals(
    session: AsyncSession, conversation: ChatConversation, limit: int = MOST_AUDITED
) -> Sequence[Signal]:
    """What happened in a conversation besides its messages, the latest ``limit``, lowest first."""
    found = await session.scalars(
        select(Signal)
        .where(
            Signal.subject_type == SUBJECT,
            Signal.subject_id == str(conversation.id),
            Signal.type.not_in(("webchat.message.received", "webchat.reply.sent")),
        )
        .order_by(Signal.id.desc())
        .limit(limit)
    )
    return found.all()[::-1]


async def audit_directives(
    session: AsyncSession, conversation: ChatConversation, limit: int = MOST_AUDITED
) -> Sequence[Directive]:
    """What was asked for about a conversation, the latest ``limit``, lowest first."""
    found = await session.scalars(
        select(Directive)
        .where(Directive.correlation_id == correlation_of(conversation.id))
        .order_by(Directive.id.desc())
        .limit(limit)
    )
    return found.all()[::-1]


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
