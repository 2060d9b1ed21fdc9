"""The connectors of a tenant, kept up to date by their own signals."""

from fleetprompt.db.migrations import op

revision = "t0008"
down_revision = "t0007"

CONNECTORS = """
CREATE TABLE connectors (
    id               uuid PRIMARY KEY,
    package          text NOT NULL,
    label            text NOT NULL CHECK (length(label) BETWEEN 1 AND 100),
    state            text NOT NULL DEFAULT 'requested'
                       CHECK (state IN ('requested', 'paired', 'connected', 'silent', 'revoked')),
    account          text,
    device_id        text,
    version          text,
    paired_at        timestamptz,
    last_seen_at     timestamptz,
    -- The latest heartbeat: its own time, and its fields in bounds.
    heartbeat_at     timestamptz,
    heartbeat        jsonb NOT NULL DEFAULT '{}',
    -- Whether its last word was that something is wrong.
    troubled         boolean NOT NULL DEFAULT false,
    last_error_kind  text CHECK (last_error_kind IN ('auth', 'network', 'rate_limit', 'validation', 'unknown')),
    last_error_code  text,
    last_error_place text,
    last_error       text,
    last_error_at    timestamptz,
    created_by       text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now(),
    revoked_at       timestamptz,
    CHECK ((state = 'revoked') = (revoked_at IS NOT NULL))
) WITH (fillfactor = 50);
"""

# The condition is checked without calling anything, so that other signals cost next to nothing.
TRIGGER = """
CREATE TRIGGER connector_heard AFTER INSERT ON signals FOR EACH ROW
    WHEN (NEW.type IN ('connector.heartbeat', 'connector.error')
          AND NEW.metadata ->> 'connector_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$')
    EXECUTE FUNCTION fleetprompt.connector_heard();
"""


def upgrade() -> None:
    """Create the table and have it follow what connectors say."""
    op.execute(CONNECTORS)
    op.execute(TRIGGER)
