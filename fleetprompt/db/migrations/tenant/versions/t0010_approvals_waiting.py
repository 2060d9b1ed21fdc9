"""Approvals that wait are known to the platform by id, type and time."""

from fleetprompt.db.migrations import op

revision = "t0010"
down_revision = "t0009"

TRIGGERS = """
CREATE TRIGGER approvals_waiting AFTER INSERT OR DELETE OR UPDATE OF state ON approvals
    FOR EACH ROW EXECUTE FUNCTION fleetprompt.keep_approvals_waiting();

INSERT INTO fleetprompt.approvals_waiting (tenant_schema, approval_id, type, created_at)
    SELECT current_schema(), id, directive_type, created_at FROM approvals WHERE state = 'waiting';
"""


def upgrade() -> None:
    """Keep the index table from now on, and enter what waits already."""
    op.execute(TRIGGERS)
