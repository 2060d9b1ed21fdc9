"""What retention leaves behind."""

revision = "t0012"
down_revision = "t0011"


def upgrade() -> None:
    """Change nothing yet."""
