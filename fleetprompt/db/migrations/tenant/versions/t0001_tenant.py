"""A tenant's tables. No schema is named: the runner sets the search path."""

from fleetprompt.db.migrations import op

revision = "t0001"
down_revision = None

SIGNALS = """
CREATE TABLE signals (
    id              uuid PRIMARY KEY,
    type            text COLLATE "C" NOT NULL,
    source          text COLLATE "C" NOT NULL,
    occurred_at     timestamptz NOT NULL,
    subject_type    text COLLATE "C",
    subject_id      text COLLATE "C",
    data            jsonb NOT NULL DEFAULT '{}',
    metadata        jsonb NOT NULL DEFAULT '{}',
    correlation_id  text COLLATE "C" GENERATED ALWAYS AS (metadata ->> 'correlation_id') STORED,
    causation_id    text COLLATE "C" GENERATED ALWAYS AS (metadata ->> 'causation_id') STORED,
    dedupe_key      text COLLATE "C",
    source_event_id text COLLATE "C",
    inserted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The inserting transaction: reading forward orders by it and stops at the snapshot's horizon,
    -- so that a commit that comes late is never passed over.
    txid            bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint)
);
CREATE INDEX signals_type ON signals (type, id);
CREATE INDEX signals_txid ON signals (txid);
CREATE INDEX signals_correlation ON signals (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX signals_subject ON signals (subject_id, subject_type) WHERE subject_id IS NOT NULL;
CREATE INDEX signals_occurred_at ON signals USING brin (occurred_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX signals_inserted_at ON signals USING brin (inserted_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE TRIGGER mark_stale_days AFTER INSERT ON signals
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION fleetprompt.mark_stale_days();

-- A hash of each dedupe key, for ever: it outlives the signal, so that an old event that comes back
-- is still a duplicate.
CREATE TABLE signal_keys (
    key       uuid PRIMARY KEY,
    signal_id uuid NOT NULL
);
"""

DIRECTIVES = """
CREATE TABLE directives (
    id               uuid PRIMARY KEY,
    type             text NOT NULL,
    params           jsonb NOT NULL DEFAULT '{}',
    idempotency_key  text NOT NULL UNIQUE CHECK (length(idempotency_key) <= 512),
    state            text NOT NULL CHECK (state IN ('requested', 'awaiting_approval', 'pending',
                       'running', 'succeeded', 'failed', 'unknown', 'cancelled')),
    actor            text NOT NULL,
    actor_role       text,
    changed_by       text NOT NULL,
    correlation_id   text,
    causation_id     text,
    target           text NOT NULL DEFAULT 'platform',
    priority         bigint NOT NULL DEFAULT 0,
    attempt          bigint NOT NULL DEFAULT 0,
    max_attempts     bigint NOT NULL DEFAULT 5 CHECK (max_attempts > 0),
    lease_token      uuid,
    lease_owner      text,
    lease_expires_at timestamptz,
    available_at     timestamptz NOT NULL DEFAULT now(),
    expires_at       timestamptz,
    result           jsonb,
    error_kind       text CHECK (error_kind IN ('auth', 'network', 'rate_limit', 'validation', 'unknown')),
    error_message    text,
    dagster_run_id   text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz,
    CHECK ((state = 'running') = (lease_token IS NOT NULL)),
    CHECK ((lease_token IS NULL) = (lease_expires_at IS NULL)),
    CHECK ((state IN ('succeeded', 'failed', 'unknown', 'cancelled')) = (finished_at IS NOT NULL))
);
CREATE INDEX directives_correlation ON directives (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX directives_type ON directives (type, created_at);

CREATE TABLE directive_transitions (
    id            uuid PRIMARY KEY,
    directive_id  uuid NOT NULL REFERENCES directives ON DELETE CASCADE,
    from_state    text NOT NULL,
    to_state      text NOT NULL,
    attempt       bigint NOT NULL,
    changed_by    text NOT NULL,
    error_kind    text,
    error_message text,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT directive_state_change FOREIGN KEY (from_state, to_state)
        REFERENCES fleetprompt.directive_state_changes
);
CREATE INDEX directive_transitions_directive ON directive_transitions (directive_id, id);

CREATE TRIGGER inserted AFTER INSERT ON directives
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION fleetprompt.directives_inserted();
CREATE TRIGGER updated AFTER UPDATE ON directives
    REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION fleetprompt.directives_updated();
CREATE TRIGGER deleted AFTER DELETE ON directives
    REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION fleetprompt.directives_deleted();
CREATE TRIGGER inserted AFTER INSERT ON directive_transitions
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION fleetprompt.directive_transitions_inserted();
"""

EXECUTIONS = """
CREATE TABLE executions (
    id              uuid PRIMARY KEY,
    kind            text NOT NULL,
    state           text NOT NULL CHECK (state IN ('requested', 'running', 'completed', 'failed', 'cancelled')),
    correlation_id  text,
    causation_id    text,
    directive_id    uuid REFERENCES directives ON DELETE SET NULL,
    installation_id uuid,
    dagster_run_id  text,
    requested_at    timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    finished_at     timestamptz,
    cost_usd        numeric(18, 6) CHECK (cost_usd >= 0),
    tokens_in       bigint CHECK (tokens_in >= 0),
    tokens_out      bigint CHECK (tokens_out >= 0),
    result          jsonb,
    error_kind      text CHECK (error_kind IN ('auth', 'network', 'rate_limit', 'validation', 'unknown')),
    error_message   text
);
CREATE INDEX executions_correlation ON executions (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX executions_directive ON executions (directive_id) WHERE directive_id IS NOT NULL;
CREATE INDEX executions_installation ON executions (installation_id, requested_at);
CREATE INDEX executions_finished ON executions (finished_at);

CREATE TABLE execution_logs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    execution_id uuid NOT NULL REFERENCES executions ON DELETE CASCADE,
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    level        text NOT NULL CHECK (level IN ('debug', 'info', 'warning', 'error')),
    message      text NOT NULL CHECK (length(message) <= 4000),
    fields       jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX execution_logs_execution ON execution_logs (execution_id, id);
"""

PACKAGES = """
CREATE TABLE installations (
    id              uuid PRIMARY KEY,
    package         text NOT NULL,
    version         text NOT NULL,
    state           text NOT NULL CHECK (state IN ('requested', 'queued', 'installed', 'connected',
                      'degraded', 'failed', 'disabled')),
    config          jsonb NOT NULL DEFAULT '{}',
    config_checksum text NOT NULL,
    last_error_kind text,
    last_error      text,
    last_error_at   timestamptz,
    last_success_at timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
-- One installation of a package in a tenant; a removed one is deleted, its history is in the signals.
CREATE UNIQUE INDEX installations_package ON installations (package);

CREATE TABLE integration_credentials (
    id              uuid PRIMARY KEY,
    installation_id uuid NOT NULL REFERENCES installations ON DELETE CASCADE,
    kind            text NOT NULL,
    label           text NOT NULL,
    state           text NOT NULL CHECK (state IN ('unverified', 'connected', 'failing', 'revoked')),
    key_id          uuid NOT NULL,
    nonce           bytea NOT NULL,
    ciphertext      bytea NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    checked_at      timestamptz,
    last_error      text
);
CREATE INDEX integration_credentials_installation ON integration_credentials (installation_id);

CREATE TABLE outbound_messages (
    id               uuid PRIMARY KEY,
    dedupe_key       text NOT NULL UNIQUE CHECK (length(dedupe_key) <= 512),
    provider         text NOT NULL,
    destination      text NOT NULL,
    state            text NOT NULL CHECK (state IN ('planned', 'claimed', 'sending', 'posted', 'rejected',
                       'retryable', 'unknown')),
    content_sha256   text NOT NULL,
    attempt          bigint NOT NULL DEFAULT 0,
    lease_token      uuid,
    lease_expires_at timestamptz,
    sending_at       timestamptz,
    settled_at       timestamptz,
    retry_after      timestamptz,
    remote_id        text,
    error_kind       text CHECK (error_kind IN ('auth', 'network', 'rate_limit', 'validation', 'unknown')),
    error_message    text,
    correlation_id   text,
    directive_id     uuid REFERENCES directives ON DELETE SET NULL,
    execution_id     uuid REFERENCES executions ON DELETE SET NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbound_messages_correlation ON outbound_messages (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE INDEX outbound_messages_open ON outbound_messages (lease_expires_at) WHERE state IN ('claimed', 'sending');
"""


def upgrade() -> None:
    """Create the tenant's tables in the schema that the search path names."""
    for part in (SIGNALS, DIRECTIVES, EXECUTIONS, PACKAGES):
        op.execute(part)
