"""Limits of directive types and tenants."""

from fleetprompt.db.migrations import op

revision = "p0002"
down_revision = "p0001"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
