"""Notices of approvals."""

from fleetprompt.db.migrations import op

revision = "t0006"
down_revision = "t0005"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
