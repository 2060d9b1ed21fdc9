"""Public site keys of chat widgets."""

from fleetprompt.db.migrations import op

revision = "p0006"
down_revision = "p0005"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
