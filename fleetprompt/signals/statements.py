"""The statements of the ingest path. Each takes one JSON parameter, so that one plan serves any size."""

_RECORD = """jsonb_to_recordset(%s::jsonb) AS r(
    id uuid, key uuid, type text, source text, occurred_at timestamptz, subject_type text,
    subject_id text, dedupe_key text, source_event_id text, data jsonb, metadata jsonb)"""

# Stores what is new. Keys are inserted in their order, so that overlapping batches of concurrent
# writers wait for each other and never deadlock; of one key within a batch the first id wins, which is
# the first in the request. A key that another transaction is just inserting is waited for.
STORE = f"""
WITH input AS MATERIALIZED (SELECT * FROM {_RECORD}),
kept AS (
    INSERT INTO signal_keys (key, signal_id)
    SELECT key, id FROM input WHERE key IS NOT NULL ORDER BY key, id
    ON CONFLICT (key) DO NOTHING
    RETURNING signal_id
)
INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, dedupe_key,
                     source_event_id, data, metadata)
SELECT id, type, source, occurred_at, subject_type, subject_id, dedupe_key,
       source_event_id, data, metadata
FROM input
WHERE key IS NULL OR id IN (SELECT signal_id FROM kept)
ORDER BY id
RETURNING id
"""  # noqa: S608 - no value is interpolated

# Asks for the directives of handlers, for signals that this transaction stored and packages that are
# installed. Ids are new, so that a row with the id can only be this transaction's. The first parameter
# names the types that need approval by nature; the tenant's terms may ask for it on others. Answers what
# is new; the approvals of what waits for one are opened before the commit.
REQUEST = """
INSERT INTO directives (id, type, params, idempotency_key, state, actor, changed_by, correlation_id,
                        causation_id, target, max_attempts)
SELECT fleetprompt.uuid7(), r.type, r.params, r.idempotency_key,
       CASE WHEN r.type = ANY(%s::text[])
              OR EXISTS (SELECT FROM approval_policies p
                         WHERE p.directive_type = r.type AND p.required)
            THEN 'awaiting_approval' ELSE 'pending' END,
       'package:' || r.package, 'package:' || r.package, r.correlation_id, r.signal_id::text,
       r.target, r.max_attempts
FROM jsonb_to_recordset(%s::jsonb) AS r(
    signal_id uuid, package text, type text, params jsonb, idempotency_key text, target text,
    max_attempts bigint, correlation_id text)
WHERE EXISTS (SELECT FROM signals s WHERE s.id = r.signal_id)
  AND EXISTS (SELECT FROM installations i WHERE i.package = r.package
              AND i.state IN ('installed', 'connected', 'degraded'))
ORDER BY r.idempotency_key
ON CONFLICT (idempotency_key) DO NOTHING
RETURNING id, state
"""

# What is there under the keys of duplicates, and whether it says the same; a signal that retention
# has removed can no longer be compared.
COMPARE = f"""
SELECT r.id, k.signal_id AS stored_id,
       CASE WHEN s.id IS NULL THEN 'expired'
            WHEN (s.type, s.source, s.occurred_at, s.data) = (r.type, r.source, r.occurred_at, r.data)
             AND (s.subject_type, s.subject_id) IS NOT DISTINCT FROM (r.subject_type, r.subject_id)
            THEN 'same' ELSE 'different' END AS content
FROM {_RECORD}
JOIN signal_keys k ON k.key = r.key
LEFT JOIN signals s ON s.id = k.signal_id
"""  # noqa: S608 - no value is interpolated
