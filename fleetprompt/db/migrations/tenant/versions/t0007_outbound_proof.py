"""What proves that a message was posted."""

from fleetprompt.db.migrations import op

revision = "t0007"
down_revision = "t0006"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
