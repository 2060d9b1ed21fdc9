"""What a tenant's days used of language models."""

from fleetprompt.db.migrations import op

revision = "t0013"
down_revision = "t0012"

DAYS = """
-- The row's lock is what the cap of a day rests on: a call is counted at its most before it is made.
CREATE TABLE llm_days (
    day           date PRIMARY KEY,
    calls         bigint NOT NULL CHECK (calls > 0),
    tokens        bigint NOT NULL CHECK (tokens >= 0),
    micro_dollars bigint NOT NULL CHECK (micro_dollars >= 0)
);
"""


def upgrade() -> None:
    """Create the table in the schema that the search path names."""
    op.execute(DAYS)
