"""The package website_chat."""

revision = "t0011"
down_revision = "t0010"


def upgrade() -> None:
    """Change nothing yet."""
