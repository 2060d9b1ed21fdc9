"""Sites, conversations and messages of the website chat."""

from fleetprompt.db.migrations import op

revision = "t0009"
down_revision = "t0008"


def upgrade() -> None:
    """Nothing yet."""
    op.execute("SELECT")
