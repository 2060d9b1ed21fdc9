"""Sessions of people at the console, one-time links that open one, and failed sign-ins."""

from fleetprompt.db.migrations import op

revision = "p0003"
down_revision = "p0002"

TABLES = """
-- Both end with the membership, a session also with the key that it was opened with.
CREATE TABLE fleetprompt.console_sessions (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    user_id         uuid NOT NULL,
    key_id          uuid REFERENCES fleetprompt.api_keys ON DELETE CASCADE,
    token_hash      bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_at      timestamptz NOT NULL,
    last_used_at    timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,
    FOREIGN KEY (organization_id, user_id) REFERENCES fleetprompt.members ON DELETE CASCADE
);
CREATE INDEX console_sessions_member ON fleetprompt.console_sessions (organization_id, user_id);
CREATE INDEX console_sessions_expiry ON fleetprompt.console_sessions (expires_at);

CREATE TABLE fleetprompt.sign_in_links (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL,
    user_id         uuid NOT NULL,
    token_hash      bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    expires_at      timestamptz NOT NULL,
    FOREIGN KEY (organization_id, user_id) REFERENCES fleetprompt.members ON DELETE CASCADE
);
CREATE INDEX sign_in_links_expiry ON fleetprompt.sign_in_links (expires_at);

-- A row for each address, kept as a keyed hash, and window of time.
CREATE TABLE fleetprompt.sign_in_failures (
    address_hash bytea NOT NULL CHECK (length(address_hash) = 32),
    window_start timestamptz NOT NULL,
    failures     bigint NOT NULL,
    PRIMARY KEY (address_hash, window_start)
);
CREATE INDEX sign_in_failures_window ON fleetprompt.sign_in_failures (window_start);
"""


def upgrade() -> None:
    """Create the tables; the application's right on them comes from the schema's defaults."""
    op.execute(TABLES)
