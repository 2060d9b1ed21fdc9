"""What connectors reported of their attempts, so that the same report again gets the first answer."""

from fleetprompt.db.migrations import op

revision = "t0004"
down_revision = "t0003"

REPORTS = """
CREATE TABLE directive_reports (
    directive_id  uuid NOT NULL REFERENCES directives ON DELETE CASCADE,
    attempt       bigint NOT NULL,
    lease_token   uuid NOT NULL,
    report_sha256 text NOT NULL CHECK (length(report_sha256) = 64),
    outcome       text NOT NULL CHECK (outcome IN ('succeeded', 'failed', 'unknown', 'retry')),
    -- What became of the directive, and when it may be fetched again.
    state         text NOT NULL CHECK (state IN ('succeeded', 'failed', 'unknown', 'pending')),
    available_at  timestamptz,
    reported_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (directive_id, attempt),
    CHECK ((state = 'pending') = (available_at IS NOT NULL))
);
"""

# The first report is the one that counts.
APPEND_ONLY = """
DO $do$ BEGIN
  EXECUTE format('REVOKE UPDATE, DELETE ON directive_reports FROM %I', current_schema());
END $do$;
"""


def upgrade() -> None:
    """Create the table and take back the right to rewrite it."""
    for part in (REPORTS, APPEND_ONLY):
        op.execute(part)
