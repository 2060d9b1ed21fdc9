"""Pairing codes of connectors."""

from fleetprompt.db.migrations import op

revision = "p0005"
down_revision = "p0004"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
