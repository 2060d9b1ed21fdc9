"""Sessions of people at the console."""

from fleetprompt.db.migrations import op

revision = "p0003"
down_revision = "p0002"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
