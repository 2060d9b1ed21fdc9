"""Sites, conversations and messages of the website chat."""

from fleetprompt.db.migrations import op

revision = "t0009"
down_revision = "t0008"

SITES = """
CREATE TABLE website_chat_sites (
    id          uuid PRIMARY KEY,
    site_key    text NOT NULL UNIQUE,
    name        text NOT NULL,
    status      text NOT NULL CHECK (status IN ('active', 'disabled')),
    mode        text NOT NULL CHECK (mode IN ('native', 'charla_embed')),
    origins     text[] NOT NULL,
    settings    jsonb NOT NULL,
    inserted_at timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

-- Sealed with the tenant's data key. The id of a token's secret is the token's key id; of each purpose
-- one at a time is not retired.
CREATE TABLE website_chat_site_secrets (
    id         uuid PRIMARY KEY,
    site_id    uuid NOT NULL REFERENCES website_chat_sites ON DELETE CASCADE,
    purpose    text NOT NULL CHECK (purpose IN ('token', 'visitor', 'identity')),
    key_id     uuid NOT NULL,
    nonce      bytea NOT NULL,
    ciphertext bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);
CREATE UNIQUE INDEX website_chat_site_secrets_current ON website_chat_site_secrets (site_id, purpose)
    WHERE retired_at IS NULL;
"""

CONVERSATIONS = """
CREATE TABLE website_chat_conversations (
    id              uuid PRIMARY KEY,
    site_id         uuid NOT NULL REFERENCES website_chat_sites ON DELETE CASCADE,
    visitor_id      uuid NOT NULL,
    status          text NOT NULL CHECK (status IN ('open', 'closed', 'erased')),
    -- The newest message's number, and a count of changes of any kind; both move under the row's lock.
    last_seq        bigint NOT NULL DEFAULT 0,
    revision        bigint NOT NULL DEFAULT 0,
    visitor_name    text,
    visitor_email   text,
    identity        text,
    consent_version text,
    consented_at    timestamptz,
    language        text,
    page_url        text,
    address_hash    text,
    agent_hash      text,
    agent           text,
    assignee        text,
    read_seq        bigint NOT NULL DEFAULT 0,
    waiting_since   timestamptz,
    rating          bigint CHECK (rating BETWEEN 1 AND 5),
    inserted_at     timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    closed_at       timestamptz,
    CHECK ((status = 'open') = (closed_at IS NULL))
);
CREATE UNIQUE INDEX website_chat_conversations_open ON website_chat_conversations (site_id, visitor_id)
    WHERE status = 'open';
CREATE INDEX website_chat_conversations_visitor ON website_chat_conversations (site_id, visitor_id, id);
CREATE INDEX website_chat_conversations_status ON website_chat_conversations (status, id);

CREATE TABLE website_chat_messages (
    id                uuid PRIMARY KEY,
    conversation_id   uuid NOT NULL REFERENCES website_chat_conversations ON DELETE CASCADE,
    seq               bigint NOT NULL CHECK (seq > 0),
    role              text NOT NULL CHECK (role IN ('visitor', 'assistant', 'agent')),
    author            text,
    content           text,
    client_message_id uuid,
    metadata          jsonb NOT NULL DEFAULT '{}',
    signal_id         uuid NOT NULL,
    inserted_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX website_chat_messages_seq ON website_chat_messages (conversation_id, seq);
CREATE UNIQUE INDEX website_chat_messages_client ON website_chat_messages (conversation_id, client_message_id)
    WHERE client_message_id IS NOT NULL;

-- Visitors that asked to be forgotten: an id that follows from a secret which no longer holds.
CREATE TABLE website_chat_erasures (
    site_id    uuid NOT NULL REFERENCES website_chat_sites ON DELETE CASCADE,
    visitor_id uuid NOT NULL,
    erased_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (site_id, visitor_id)
);
"""

LIMITS = """
CREATE TABLE website_chat_limits (
    bucket  text COLLATE "C" NOT NULL,
    ends_at timestamptz NOT NULL,
    taken   bigint NOT NULL,
    PRIMARY KEY (bucket, ends_at)
);
CREATE INDEX website_chat_limits_end ON website_chat_limits (ends_at);

-- What addresses and browsers are hashed with; a day's salt is removed once the day after has ended,
-- and nobody can then tell what a hash stood for.
CREATE TABLE website_chat_salts (
    day  date PRIMARY KEY,
    salt bytea NOT NULL CHECK (length(salt) = 32)
);
"""


def upgrade() -> None:
    """Create the tables in the schema that the search path names."""
    for part in (SITES, CONVERSATIONS, LIMITS):
        op.execute(part)
