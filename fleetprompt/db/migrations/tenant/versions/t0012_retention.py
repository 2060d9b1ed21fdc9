"""What retention leaves behind: days that the lake alone holds in full, and what directives said."""

from fleetprompt.db.migrations import op

revision = "t0012"
down_revision = "t0011"

TABLES = """
-- UTC days of which signals were removed here; the lake's file has them. Whoever writes such a day again
-- keeps the file's rows.
CREATE TABLE lake_days (
    day             date PRIMARY KEY,
    signals_removed bigint NOT NULL DEFAULT 0 CHECK (signals_removed >= 0),
    changed_at      timestamptz NOT NULL DEFAULT now(),
    -- When retention removed the day's file too.
    file_removed_at timestamptz
);

-- Deleting an execution looks for the messages that name it.
CREATE INDEX outbound_messages_execution ON outbound_messages (execution_id)
    WHERE execution_id IS NOT NULL;

-- The hash of what a directive asked for, once its params were removed: who asks again under its
-- idempotency key is still told whether it is the same.
ALTER TABLE directives ADD COLUMN action_sha256 text CHECK (length(action_sha256) = 64);
"""


def upgrade() -> None:
    """Create the table and add the column."""
    op.execute(TABLES)
