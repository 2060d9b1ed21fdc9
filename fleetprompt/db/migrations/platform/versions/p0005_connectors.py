"""Pairing codes of connectors, tries at them, and what their signals change."""

from fleetprompt.db.migrations import op
from fleetprompt.db.migrations.platform.versions.p0001_platform import ROW_SECURITY

revision = "p0005"
down_revision = "p0004"

# A code is found by the keyed hash of its first part and told by that of the whole; at most one for each
# connector. Using it up deletes it.
TABLES = """
CREATE TABLE fleetprompt.pairing_codes (
    finder_hash     bytea PRIMARY KEY CHECK (length(finder_hash) = 32),
    code_hash       bytea NOT NULL CHECK (length(code_hash) = 32),
    organization_id uuid NOT NULL REFERENCES fleetprompt.organizations ON DELETE CASCADE,
    connector_id    uuid NOT NULL,
    label           text NOT NULL,
    expires_at      timestamptz NOT NULL,
    UNIQUE (organization_id, connector_id)
);
CREATE INDEX pairing_codes_expiry ON fleetprompt.pairing_codes (expires_at);

-- Tries at a first part, whether there is such a code or not: both cost the same, and leave the same.
CREATE TABLE fleetprompt.pairing_tries (
    finder_hash bytea PRIMARY KEY CHECK (length(finder_hash) = 32),
    tries       bigint NOT NULL,
    ends_at     timestamptz NOT NULL
);
CREATE INDEX pairing_tries_end ON fleetprompt.pairing_tries (ends_at);

-- Connectors that are expected to be heard of, and when to look whether they were. A heartbeat does not
-- move the time: whoever looks does.
CREATE TABLE fleetprompt.connectors_watched (
    tenant_schema text NOT NULL DEFAULT current_user,
    connector_id  uuid NOT NULL,
    look_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_schema, connector_id)
);
CREATE INDEX connectors_watched_next ON fleetprompt.connectors_watched (look_at);
"""

# What a connector says of itself is kept in bounds: short texts and numbers, nothing nested. Nothing here
# may raise, or the signal would be lost with it.
BRIEF = """
CREATE FUNCTION fleetprompt.brief(value jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE jsonb_typeof(value)
           WHEN 'string' THEN to_jsonb(left(value #>> '{}', 64))
           WHEN 'number' THEN CASE WHEN length(value::text) <= 20 THEN value END
         END $$;
CREATE FUNCTION fleetprompt.brief_heartbeat(data jsonb) RETURNS jsonb
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT jsonb_strip_nulls(jsonb_build_object(
    'uptime_seconds', fleetprompt.brief(data -> 'uptime_seconds'),
    'last_poll_at', fleetprompt.brief(data -> 'last_poll_at'),
    'last_post_at', fleetprompt.brief(data -> 'last_post_at'),
    'queue', jsonb_build_object(
      'signals', fleetprompt.brief(data -> 'queue' -> 'signals'),
      'bytes', fleetprompt.brief(data -> 'queue' -> 'bytes'),
      'dead_letters', fleetprompt.brief(data -> 'queue' -> 'dead_letters')),
    'problems', (
      SELECT coalesce(jsonb_agg(jsonb_build_object(
               'place', fleetprompt.brief(one -> 'place'), 'kind', fleetprompt.brief(one -> 'kind'),
               'code', fleetprompt.brief(one -> 'code'), 'since', fleetprompt.brief(one -> 'since'))), '[]')
      FROM (SELECT one FROM jsonb_array_elements(
              CASE jsonb_typeof(data -> 'problems') WHEN 'array' THEN data -> 'problems' ELSE '[]' END) one
            LIMIT 20) first)
  )) $$;
"""

# Called for heartbeats and errors alone (t0008). One who hears of several connectors in one transaction
# takes the tenant's lock first, so that two who hear of the same ones in another order cannot wait for
# one another; so does whoever else changes several.
HEARD = """
CREATE FUNCTION fleetprompt.connector_heard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  was record;
  beat jsonb;
  kind text;
  bad boolean;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('fleetprompt.connectors:' || TG_TABLE_SCHEMA, 0));
  SELECT * INTO was FROM connectors
    WHERE id = (NEW.metadata ->> 'connector_id')::uuid AND state <> 'revoked' FOR UPDATE;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF NEW.type = 'connector.heartbeat' THEN
    beat := fleetprompt.brief_heartbeat(NEW.data);
    -- An error that began after this heartbeat may have been told before it; not by a clock that was ahead.
    bad := beat -> 'problems' <> '[]' OR coalesce(
      was.last_error_at > NEW.occurred_at AND was.last_error_at <= clock_timestamp(), false);
    UPDATE connectors SET
        state = 'connected', last_seen_at = clock_timestamp(), heartbeat = beat,
        heartbeat_at = NEW.occurred_at, troubled = bad,
        version = coalesce(fleetprompt.brief(NEW.data -> 'version') #>> '{}', version)
      WHERE id = was.id;
    INSERT INTO fleetprompt.connectors_watched (tenant_schema, connector_id)
      SELECT TG_TABLE_SCHEMA, was.id WHERE was.state <> 'connected' ON CONFLICT DO NOTHING;
    IF bad THEN
      UPDATE installations SET state = 'degraded', updated_at = clock_timestamp()
        WHERE package = was.package AND state IN ('installed', 'connected');
    ELSE
      UPDATE installations
        SET state = 'connected', last_success_at = clock_timestamp(), updated_at = clock_timestamp()
        WHERE package = was.package AND state IN ('installed', 'connected', 'degraded')
          AND (state <> 'connected' OR last_success_at IS NULL
               OR last_success_at < clock_timestamp() - interval '10 minutes')
          AND NOT EXISTS (SELECT FROM connectors other WHERE other.package = was.package
                            AND other.troubled AND other.state <> 'revoked');
    END IF;
  ELSE
    kind := CASE WHEN NEW.data ->> 'kind' IN ('auth', 'network', 'rate_limit', 'validation')
                 THEN NEW.data ->> 'kind' ELSE 'unknown' END;
    -- What is told late may have been mended before the last heartbeat.
    bad := was.heartbeat_at IS NULL OR was.heartbeat_at <= NEW.occurred_at;
    UPDATE connectors SET
        last_seen_at = clock_timestamp(), troubled = troubled OR bad, last_error_kind = kind,
        last_error_code = fleetprompt.brief(NEW.data -> 'code') #>> '{}',
        last_error_place = fleetprompt.brief(NEW.data -> 'place') #>> '{}',
        last_error = left(coalesce(NEW.data ->> 'message', 'no reason was given'), 500),
        last_error_at = NEW.occurred_at
      WHERE id = was.id;
    UPDATE installations SET
        state = 'degraded', last_error_kind = kind, last_error_at = clock_timestamp(),
        last_error = left(coalesce(NEW.data ->> 'message', 'no reason was given'), 500),
        updated_at = clock_timestamp()
      WHERE bad AND package = was.package AND state IN ('installed', 'connected', 'degraded');
  END IF;
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    """Create the tables and the function; codes are the application's alone."""
    op.execute(TABLES)
    op.execute(ROW_SECURITY.format(table="connectors_watched"))
    op.execute(BRIEF)
    op.execute(HEARD)
