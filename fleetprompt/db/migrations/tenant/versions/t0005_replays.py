"""Replays of signals."""

from fleetprompt.db.migrations import op

revision = "t0005"
down_revision = "t0004"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
