"""Upkeep of the platform's own tables."""

revision = "p0007"
down_revision = "p0006"


def upgrade() -> None:
    """Change nothing yet."""
