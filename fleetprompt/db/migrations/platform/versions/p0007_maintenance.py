"""How long each tenant keeps what, in place of the platform's defaults."""

from fleetprompt.db.migrations import op

revision = "p0007"
down_revision = "p0006"

TABLES = """
CREATE TABLE fleetprompt.retention_terms (
    organization_id uuid NOT NULL REFERENCES fleetprompt.organizations ON DELETE CASCADE,
    family          text NOT NULL CHECK (family IN ('signals', 'lake', 'executions', 'directives',
                      'conversations')),
    -- NULL: for ever.
    days            bigint CHECK (days > 0),
    changed_by      text NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, family)
);
-- One number for everything, which nothing ever read.
ALTER TABLE fleetprompt.organizations DROP COLUMN retention_days;
"""


def upgrade() -> None:
    """Create the table; the application's right on it comes from the schema's defaults."""
    op.execute(TABLES)
