"""Forgetting in directives: what the team and models wrote about a visitor, and mails that still wait.

What a directive was, when, and how it ended stays; so does the hash of what people approved.
"""

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.webchat.telling import correlation_of

_STRIP = (
    # A mail with the visitor's words that no connector has fetched is not sent any more, and a draft that
    # is being written is not kept.
    text(
        """
        UPDATE directives SET state = 'cancelled', changed_by = 'platform', lease_token = NULL,
               lease_owner = NULL, lease_expires_at = NULL, finished_at = clock_timestamp()
        WHERE correlation_id = :story
          AND (type = 'email.send' AND state IN ('requested', 'awaiting_approval', 'pending')
            OR type = 'webchat.reply_generate' AND state IN ('awaiting_approval', 'pending', 'running'))
        """
    ),
    text(
        """
        UPDATE approvals SET state = 'withdrawn', settled_at = clock_timestamp(), settled_by = 'platform'
        WHERE state IN ('waiting', 'approved') AND directive_id IN (
            SELECT id FROM directives WHERE type = 'email.send' AND correlation_id = :story)
        """
    ),
    text("SELECT forget_approved(:conversation_id)"),
    text(
        """
        UPDATE directives SET params = params || '{"text": "(erased)"}', changed_by = 'platform'
        WHERE type = 'webchat.reply_send' AND correlation_id = :story
        """
    ),
    text(
        """
        UPDATE directives SET params = params || '{"text_body": "(erased)"}', changed_by = 'platform'
        WHERE type = 'email.send' AND correlation_id = :story
        """
    ),
    text(
        """
        UPDATE directives SET result = NULL, changed_by = 'platform'
        WHERE type = 'webchat.reply_generate' AND correlation_id = :story AND result IS NOT NULL
        """
    ),
)


async def strip_directives(session: AsyncSession, conversation_id: UUID) -> None:
    """Remove the words from every directive of a conversation, which is marked as erased already."""
    values = {"story": correlation_of(conversation_id), "conversation_id": conversation_id}
    for statement in _STRIP:
        await session.execute(statement, values)
