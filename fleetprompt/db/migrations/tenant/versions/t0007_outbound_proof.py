"""What proves that a message was posted, where to look for it, and who settled what nobody knew."""

from fleetprompt.db.migrations import op

revision = "t0007"
down_revision = "t0006"

PROOF = """
-- Noted just before the first byte leaves: where it goes (the other side's id), who posts it there, and
-- the other side's own time, from which it is looked for afterwards.
ALTER TABLE outbound_messages
    ADD COLUMN remote_place  text,
    ADD COLUMN remote_author text,
    ADD COLUMN remote_time   timestamptz,
-- When it was first looked for, in full and in vain, after its sending was over.
    ADD COLUMN absent_at     timestamptz,
    ADD COLUMN permalink     text,
    ADD COLUMN proof         text CHECK (proof IN ('answer', 'read_back')),
-- What a person, or the platform by itself, decided of an unknown one, and the directive that tells who.
    ADD COLUMN resolution    text CHECK (resolution IN ('posted_again', 'given_up')),
    ADD COLUMN resolved_by   uuid,
    ADD COLUMN resolved_at   timestamptz;
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(PROOF)
