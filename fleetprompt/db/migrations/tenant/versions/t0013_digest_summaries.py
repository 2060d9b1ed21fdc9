"""Summaries of digests."""

revision = "t0013"
down_revision = "t0012"


def upgrade() -> None:
    """Change nothing yet."""
