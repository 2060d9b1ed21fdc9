"""The platform's own tables: who there is, what needs attention, and when."""

from sqlalchemy import text

from fleetprompt.db.migrations import op

revision = "p0001"
down_revision = None

TABLES = """
CREATE TABLE fleetprompt.organizations (
    id             uuid PRIMARY KEY,
    slug           text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 48),
    name           text NOT NULL,
    schema_name    text NOT NULL UNIQUE CHECK (schema_name = 'org_' || slug),
    state          text NOT NULL DEFAULT 'active' CHECK (state IN ('creating', 'active', 'deleting')),
    revision       text,
    retention_days bigint CHECK (retention_days > 0),
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE fleetprompt.users (
    id         uuid PRIMARY KEY,
    email      text NOT NULL CHECK (email LIKE '%_@_%'),
    name       text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX users_email ON fleetprompt.users (lower(email));

CREATE TABLE fleetprompt.members (
    organization_id uuid NOT NULL REFERENCES fleetprompt.organizations ON DELETE CASCADE,
    user_id         uuid NOT NULL REFERENCES fleetprompt.users ON DELETE CASCADE,
    role            text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    active          boolean NOT NULL DEFAULT true,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, user_id)
);

CREATE TABLE fleetprompt.api_keys (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES fleetprompt.organizations ON DELETE CASCADE,
    kind            text NOT NULL CHECK (kind IN ('user', 'conn', 'pub')),
    name            text NOT NULL,
    token_hash      bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    hint            text NOT NULL,
    scopes          text[] NOT NULL,
    role            text CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    user_id         uuid REFERENCES fleetprompt.users ON DELETE CASCADE,
    connector_id    text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    revoked_at      timestamptz,
    last_used_at    timestamptz,
    CHECK ((kind = 'user') = (role IS NOT NULL)),
    CHECK ((kind = 'conn') = (connector_id IS NOT NULL))
);
CREATE INDEX api_keys_organization ON fleetprompt.api_keys (organization_id, created_at);

-- Each tenant's data key, wrapped under the master key, which is never in this database.
CREATE TABLE fleetprompt.data_keys (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES fleetprompt.organizations ON DELETE CASCADE,
    -- Which master key wraps it: 16 hex digits that tell nothing of the key.
    master_key_id   text NOT NULL,
    nonce           bytea NOT NULL,
    wrapped         bytea NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    retired_at      timestamptz
);
CREATE UNIQUE INDEX data_keys_current ON fleetprompt.data_keys (organization_id) WHERE retired_at IS NULL;
"""

# Index tables: ids and times only. Tenants write them in their own transactions; row-level security
# keeps each to its own rows, by the name of its role, which is the name of its schema.
INDEXES = """
-- One row a flush and UTC day. Insert-only, so that writers never wait for one another; the reader
-- deletes the rows it saw and then reads the day, which therefore holds everything they stood for.
CREATE TABLE fleetprompt.stale_partitions (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_schema text NOT NULL DEFAULT current_user,
    day           date NOT NULL,
    marked_at     timestamptz NOT NULL DEFAULT now()
);

-- What the platform must look at, and when: pending directives by their start time, running ones by
-- the end of their lease.
CREATE TABLE fleetprompt.directive_queue (
    tenant_schema text NOT NULL DEFAULT current_user,
    directive_id  uuid NOT NULL,
    type          text NOT NULL,
    target        text NOT NULL,
    priority      bigint NOT NULL,
    due_at        timestamptz NOT NULL,
    PRIMARY KEY (tenant_schema, directive_id)
);
CREATE INDEX directive_queue_due ON fleetprompt.directive_queue (target, due_at);

-- One slot per tenant, installation and local date, made ahead of time.
CREATE TABLE fleetprompt.schedule_slots (
    tenant_schema   text NOT NULL DEFAULT current_user,
    installation_id uuid NOT NULL,
    local_date      date NOT NULL,
    due_at          timestamptz NOT NULL,
    window_start    timestamptz NOT NULL,
    window_end      timestamptz NOT NULL,
    zone            text NOT NULL,
    state           text NOT NULL DEFAULT 'planned'
                    CHECK (state IN ('planned', 'requested', 'done', 'failed', 'skipped_missed', 'skipped_paused')),
    directive_id    uuid,
    settled_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_schema, installation_id, local_date),
    CHECK (window_start < window_end)
);
CREATE INDEX schedule_slots_due ON fleetprompt.schedule_slots (due_at) WHERE state = 'planned';
CREATE INDEX schedule_slots_open ON fleetprompt.schedule_slots (settled_at) WHERE state = 'requested';
"""

GRANTS = """
GRANT USAGE ON SCHEMA fleetprompt TO fleetprompt_app, fleetprompt_tenant;
ALTER DEFAULT PRIVILEGES IN SCHEMA fleetprompt
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO fleetprompt_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA fleetprompt TO fleetprompt_app;
"""
ROW_SECURITY = """
ALTER TABLE fleetprompt.{table} ENABLE ROW LEVEL SECURITY;
GRANT SELECT, INSERT, UPDATE, DELETE ON fleetprompt.{table} TO fleetprompt_tenant;
CREATE POLICY platform ON fleetprompt.{table} TO fleetprompt_app USING (true) WITH CHECK (true);
CREATE POLICY own_rows ON fleetprompt.{table} TO fleetprompt_tenant
    USING (tenant_schema = current_user) WITH CHECK (tenant_schema = current_user);
"""

# Ids that triggers make: UUIDv7 like the application's (PostgreSQL has it built in from 18 on).
# The older way keeps the order too: the microseconds stand in the 12 bits behind the milliseconds
# (RFC 9562 §6.2, method 3).
UUID7_FROM_18 = """
CREATE FUNCTION fleetprompt.uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE
    AS 'SELECT pg_catalog.uuidv7()'
"""
UUID7_BEFORE_18 = """
CREATE FUNCTION fleetprompt.uuid7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(overlay(uuid_send(gen_random_uuid()) PLACING int8send(
    (us / 1000 << 16) | (7 << 12) | (us % 1000 * 4096 / 1000)) FROM 1 FOR 8), 'hex')::uuid
  FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us OFFSET 0) AS now $$
"""


SIGNAL_TRIGGER = """
CREATE FUNCTION fleetprompt.mark_stale_days() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO fleetprompt.stale_partitions (tenant_schema, day)
    SELECT DISTINCT TG_TABLE_SCHEMA, (occurred_at AT TIME ZONE 'UTC')::date FROM inserted;
  RETURN NULL;
END $$;
"""

# The state machine of directives (architecture §5). '' stands for a directive that is being made.
# A transition's foreign key to this table is what refuses an illegal one.
STATE_MACHINE = """
CREATE TABLE fleetprompt.directive_state_changes (
    from_state text NOT NULL,
    to_state   text NOT NULL,
    PRIMARY KEY (from_state, to_state)
);
GRANT SELECT ON fleetprompt.directive_state_changes TO fleetprompt_tenant;
INSERT INTO fleetprompt.directive_state_changes VALUES
    ('', 'requested'),
    ('requested', 'awaiting_approval'), ('requested', 'pending'), ('requested', 'cancelled'),
    ('awaiting_approval', 'pending'), ('awaiting_approval', 'cancelled'),
    ('pending', 'running'), ('pending', 'cancelled'), ('pending', 'failed'),
    ('running', 'succeeded'), ('running', 'pending'), ('running', 'failed'),
    ('running', 'unknown'), ('running', 'cancelled'),
    ('unknown', 'succeeded'), ('unknown', 'failed'), ('unknown', 'pending');
"""

# Every change of a directive's state becomes a transition and, through that, a lifecycle signal in
# the same transaction, whoever made the change; nothing else writes either. Table names without a
# schema are the tenant's, by the search path of its transaction.
DIRECTIVE_TRIGGERS = """
CREATE FUNCTION fleetprompt.directives_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO directive_transitions (id, directive_id, from_state, to_state, attempt, changed_by)
    SELECT fleetprompt.uuid7(), d.id, step.from_state, step.to_state, d.attempt, d.changed_by
    FROM inserted d
    CROSS JOIN LATERAL (VALUES (1, '', 'requested'), (2, 'requested', d.state))
      AS step (number, from_state, to_state)
    WHERE step.number = 1 OR d.state <> 'requested'
    ORDER BY step.number;
  INSERT INTO fleetprompt.directive_queue (tenant_schema, directive_id, type, target, priority, due_at)
    SELECT TG_TABLE_SCHEMA, d.id, d.type, d.target, d.priority, d.available_at
    FROM inserted d WHERE d.state = 'pending';
  RETURN NULL;
END $$;

CREATE FUNCTION fleetprompt.directives_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO directive_transitions
      (id, directive_id, from_state, to_state, attempt, changed_by, error_kind, error_message)
    SELECT fleetprompt.uuid7(), after.id, before.state, after.state, after.attempt,
           after.changed_by, after.error_kind, after.error_message
    FROM after JOIN before ON before.id = after.id
    WHERE after.state <> before.state;
  DELETE FROM fleetprompt.directive_queue AS q USING after
    WHERE q.tenant_schema = TG_TABLE_SCHEMA AND q.directive_id = after.id
      AND after.state NOT IN ('pending', 'running');
  INSERT INTO fleetprompt.directive_queue AS q
      (tenant_schema, directive_id, type, target, priority, due_at)
    SELECT TG_TABLE_SCHEMA, after.id, after.type, after.target, after.priority,
           CASE after.state WHEN 'running' THEN after.lease_expires_at ELSE after.available_at END
    FROM after WHERE after.state IN ('pending', 'running')
    ON CONFLICT (tenant_schema, directive_id)
      DO UPDATE SET due_at = excluded.due_at, priority = excluded.priority;
  RETURN NULL;
END $$;

CREATE FUNCTION fleetprompt.directives_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM fleetprompt.directive_queue AS q USING removed
    WHERE q.tenant_schema = TG_TABLE_SCHEMA AND q.directive_id = removed.id;
  RETURN NULL;
END $$;

CREATE FUNCTION fleetprompt.directive_transitions_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, source_event_id,
                       data, metadata)
    SELECT fleetprompt.uuid7(), 'directive.' || t.to_state, 'platform', t.at,
           'directive', t.directive_id::text, 'directive_transition:' || t.id,
           jsonb_strip_nulls(jsonb_build_object(
             'directive_type', d.type, 'from', t.from_state, 'to', t.to_state,
             'attempt', t.attempt, 'target', d.target, 'actor', d.actor,
             'error_kind', t.error_kind, 'error_message', t.error_message)),
           jsonb_strip_nulls(jsonb_build_object(
             'schema_version', 1, 'correlation_id', d.correlation_id,
             'causation_id', d.causation_id))
    FROM inserted t JOIN directives d ON d.id = t.directive_id
    ORDER BY t.id;
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    """Create everything in schema ``fleetprompt``, which the runner has made."""
    op.execute(TABLES)
    op.execute(INDEXES)
    version = op.get_bind().scalar(text("SELECT current_setting('server_version_num')::int")) or 0
    op.execute(UUID7_FROM_18 if version >= 180000 else UUID7_BEFORE_18)
    op.execute(GRANTS)
    for table in ("stale_partitions", "directive_queue", "schedule_slots"):
        op.execute(ROW_SECURITY.format(table=table))
    op.execute(SIGNAL_TRIGGER)
    op.execute(STATE_MACHINE)
    op.execute(DIRECTIVE_TRIGGERS)
