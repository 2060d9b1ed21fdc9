"""Forgetting: what a visitor said is removed from messages and signals; that there was something stays."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.webchat.erased_directives import strip_directives
from fleetprompt.webchat.models import ChatConversation, ChatErasure, ChatMessage
from fleetprompt.webchat.telling import SUBJECT, tell

# Ids, numbers and times stay, so that the story can still be followed; words, names and places go.
ERASED_FIELDS = ("text", "name", "email", "page_url", "assignee")
_STRIP_SIGNALS = text(
    """
    WITH stripped AS (
        UPDATE signals
        SET data = (data - CAST(:fields AS text[])) || '{"erased": true}'
        WHERE subject_type = :subject_type AND subject_id = ANY(:subjects) AND NOT data ? 'erased'
        RETURNING occurred_at)
    -- The lake's files of these days still hold the words; a stale day is written again.
    INSERT INTO fleetprompt.stale_partitions (tenant_schema, day)
    SELECT DISTINCT current_user, (occurred_at AT TIME ZONE 'UTC')::date FROM stripped
    """
)
# Days of which retention has removed signals here: their files are written without the words.
_MARK_REMOVED_DAYS = text(
    """
    INSERT INTO fleetprompt.stale_partitions (tenant_schema, day)
    SELECT current_user, day FROM lake_days
    WHERE file_removed_at IS NULL AND day >= (CAST(:since AS timestamptz) AT TIME ZONE 'UTC')::date
    """
)


async def erase_visitor(
    session: AsyncSession, site_id: UUID, visitor_id: UUID, now: datetime, *, by: str
) -> Sequence[UUID]:
    """Forget a visitor for good; the ids of the conversations that were erased now.

    ``by`` is who asked: ``visitor``, or the actor (``user:<id>``). The conversations' rows are locked first,
    so that no message slips in behind. Repeating it changes nothing.
    """
    await session.execute(
        insert(ChatErasure).values(site_id=site_id, visitor_id=visitor_id).on_conflict_do_nothing()
    )
    found = await session.scalars(
        select(ChatConversation)
        .where(
            ChatConversation.site_id == site_id,
            ChatConversation.visitor_id == visitor_id,
            ChatConversation.status != "erased",
        )
        .order_by(ChatConversation.id)
        .with_for_update()
    )
    conversations = found.all()
    for conversation in conversations:
        await erase_conversation(session, conversation, now, by=by)
    return [one.id for one in conversations]


async def erase_conversation(
    session: AsyncSession, conversation: ChatConversation, now: datetime, *, by: str
) -> None:
    """Remove what was said in a conversation, whose row is locked; a tombstone says who asked for it."""
    conversation.status = "erased"
    conversation.closed_at = conversation.closed_at or now
    for name in (
        *("visitor_name", "visitor_email", "identity", "page_url", "address_hash", "agent_hash"),
        *("language", "waiting_since", "assignee"),
    ):
        setattr(conversation, name, None)
    conversation.revision += 1
    conversation.updated_at = now
    await session.execute(
        update(ChatMessage)
        .where(ChatMessage.conversation_id == conversation.id)
        .values(content=None, context={})
    )
    await session.execute(
        _STRIP_SIGNALS,
        {
            "fields": list(ERASED_FIELDS),
            "subject_type": SUBJECT,
            "subjects": [str(conversation.id)],
        },
    )
    await session.execute(_MARK_REMOVED_DAYS, {"since": conversation.inserted_at})
    # What the team wrote is about the visitor too.
    await strip_directives(session, conversation.id)
    await tell(
        session,
        "conversation.erased",
        conversation,
        {"messages": conversation.last_seq, "by": by},
        dedupe_key=f"webchat_erased:{conversation.id}",
    )
