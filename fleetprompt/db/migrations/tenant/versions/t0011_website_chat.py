"""The package website_chat: what was approved is forgotten with the conversation that it belonged to."""

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


def upgrade() -> None:
    """Create the function."""
    op.execute(FORGET)
