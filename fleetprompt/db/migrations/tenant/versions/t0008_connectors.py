"""The connectors of a tenant."""

from fleetprompt.db.migrations import op

revision = "t0008"
down_revision = "t0007"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
