"""What workers counted, for metrics."""

from fleetprompt.db.migrations import op

revision = "p0004"
down_revision = "p0003"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
