"""The package website_chat: forgetting what was approved about a conversation, and finding days."""

from fleetprompt.db.migrations import op

revision = "t0011"
down_revision = "t0010"

# Nobody changes what an approval shows, and visitors may be forgotten. So the one change that there is takes
# the words of an erased conversation's replies and mails, and leaves their hash.
FORGET = """
DO $do$ BEGIN
  EXECUTE format($format$
    CREATE FUNCTION forget_approved(conversation_id uuid) RETURNS void
      LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        UPDATE %1$I.approvals a SET action = '"(erased)"'
        FROM %1$I.directives d, %1$I.website_chat_conversations c
        WHERE c.id = conversation_id AND c.status = 'erased'
          AND d.correlation_id = 'webchat:' || c.id
          AND d.type IN ('webchat.reply_send', 'email.send')
          AND a.directive_id = d.id $$;
    REVOKE ALL ON FUNCTION forget_approved(uuid) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION forget_approved(uuid) TO %1$I;
  $format$, current_schema());
END $do$
"""

# A day's figures are counted from what was said, begun and ended on it. Messages come in the order of their
# times, so that the smallest of indexes finds a day's.
DAYS = """
CREATE INDEX website_chat_messages_time ON website_chat_messages USING brin (inserted_at);
CREATE INDEX website_chat_conversations_begun ON website_chat_conversations (inserted_at);
CREATE INDEX website_chat_conversations_ended ON website_chat_conversations (closed_at)
    WHERE closed_at IS NOT NULL;
"""


def upgrade() -> None:
    """Create the function and the indexes."""
    for part in (FORGET, DAYS):
        op.execute(part)
