"""Replays of signals: what was asked, how far each is, and what came of it."""

from fleetprompt.db.migrations import op

revision = "t0005"
down_revision = "t0004"

REPLAYS = """
CREATE TABLE replays (
    id                uuid PRIMARY KEY,
    state             text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'running',
                        'completed', 'failed', 'cancelled')),
    live              boolean NOT NULL,
    selection         jsonb NOT NULL,
    asked_by          text NOT NULL,
    correlation_id    text NOT NULL,
    -- The directive whose attempt works at it now, or will next.
    directive_id      uuid NOT NULL REFERENCES directives ON DELETE CASCADE,
    -- What was committed when the replay was asked for has a lower transaction id; a replay thus never
    -- reads what it causes, nor what came after it was asked for.
    before_txid       bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    cursor_txid       bigint NOT NULL DEFAULT 0,
    cursor_id         uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000',
    signals_selected  bigint,
    signals_read      bigint NOT NULL DEFAULT 0,
    would_request     bigint NOT NULL DEFAULT 0,
    requested         bigint NOT NULL DEFAULT 0,
    duplicates        bigint NOT NULL DEFAULT 0,
    refused           bigint NOT NULL DEFAULT 0,
    handlers_failed   bigint NOT NULL DEFAULT 0,
    part              bigint NOT NULL DEFAULT 1,
    error_kind        text CHECK (error_kind IN ('auth', 'network', 'rate_limit', 'validation', 'unknown')),
    error_message     text,
    asked_at          timestamptz NOT NULL DEFAULT now(),
    started_at        timestamptz,
    finished_at       timestamptz,
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK (live OR requested = 0)
);
CREATE INDEX replays_correlation ON replays (correlation_id);

-- Every directive that a replay asked for, or would ask for, and the first of what was refused.
CREATE TABLE replay_findings (
    id              uuid PRIMARY KEY,
    replay_id       uuid NOT NULL REFERENCES replays ON DELETE CASCADE,
    outcome         text NOT NULL CHECK (outcome IN ('would_request', 'requested', 'refused',
                      'handler_failed')),
    signal_id       uuid NOT NULL,
    package         text NOT NULL,
    directive_type  text,
    idempotency_key text,
    action_sha256   text,
    params          jsonb,
    directive_id    uuid REFERENCES directives ON DELETE SET NULL,
    detail          text
);
CREATE INDEX replay_findings_replay ON replay_findings (replay_id, id);
-- What two signals ask for alike is one.
CREATE UNIQUE INDEX replay_findings_key ON replay_findings (replay_id, idempotency_key)
    WHERE outcome IN ('would_request', 'requested');
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(REPLAYS)
