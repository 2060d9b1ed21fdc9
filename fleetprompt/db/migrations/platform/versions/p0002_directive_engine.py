"""Who works directives off, and how many at once: workers, reservations, limits."""

from fleetprompt.db.migrations import op

revision = "p0002"
down_revision = "p0001"

# ``busy`` counts against the limits until ``due_at``: a directive that runs, until its lease ends, or
# one that a worker has reserved and is about to claim. ``expires_at`` is when it may start no more.
QUEUE = """
ALTER TABLE fleetprompt.directive_queue
    ADD COLUMN busy boolean NOT NULL DEFAULT false,
    ADD COLUMN expires_at timestamptz;
DROP INDEX fleetprompt.directive_queue_due;
CREATE INDEX directive_queue_next
    ON fleetprompt.directive_queue (target, tenant_schema, type, priority DESC, due_at);
CREATE INDEX directive_queue_busy ON fleetprompt.directive_queue (type, tenant_schema) WHERE busy;
-- Every row lives for a moment: what is dead must not lie in the way of the next look.
ALTER TABLE fleetprompt.directive_queue SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_cost_delay = 0);
"""

# A worker that was seen lately is alive; Dagster cannot tell that a run's process died. One that
# retires takes nothing more once another is there.
WORKERS = """
CREATE TABLE fleetprompt.workers (
    owner      text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    retiring   boolean NOT NULL DEFAULT false,
    left_at    timestamptz
);
"""

# One statement of its own, so that a worker that is stopped in the middle holds nothing up; the lock
# makes the limits exact, and each query below sees what the last holder wrote. Per tenant and type the
# most urgent are looked at and no more, however long the queue is: the pairs are found by jumping from
# one to the next in the index. Whoever has the least under way comes first.
RESERVE = """
CREATE FUNCTION fleetprompt.reserve_directives(
    most integer, most_of_tenant integer, limited_types text[], limits integer[], hold interval
) RETURNS TABLE (tenant_schema text, directive_id uuid) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('fleetprompt.reserve_directives', 0));
  RETURN QUERY
  WITH RECURSIVE pairs AS (
    (SELECT q.tenant_schema, q.type FROM fleetprompt.directive_queue q
     WHERE q.target = 'platform' ORDER BY q.tenant_schema, q.type LIMIT 1)
    UNION ALL
    SELECT n.tenant_schema, n.type FROM pairs p CROSS JOIN LATERAL (
      SELECT q.tenant_schema, q.type FROM fleetprompt.directive_queue q
      WHERE q.target = 'platform' AND (q.tenant_schema, q.type) > (p.tenant_schema, p.type)
      ORDER BY q.tenant_schema, q.type LIMIT 1) n
  ), busy AS MATERIALIZED (
    SELECT q.tenant_schema, q.type, count(*) AS number FROM fleetprompt.directive_queue q
    WHERE q.busy AND q.due_at > now() AND q.target = 'platform' GROUP BY q.tenant_schema, q.type
  ), room AS (
    SELECT p.tenant_schema, p.type, coalesce(t.number, 0) AS tenant_busy,
           most_of_tenant - coalesce(t.number, 0) AS tenant_room,
           coalesce(l.type_limit, most) - coalesce(k.number, 0) AS type_room
    FROM pairs p
    LEFT JOIN (SELECT b.tenant_schema, sum(b.number) AS number FROM busy b GROUP BY 1) t
      ON t.tenant_schema = p.tenant_schema
    LEFT JOIN unnest(limited_types, limits) AS l (type, type_limit) ON l.type = p.type
    LEFT JOIN (SELECT b.type, sum(b.number) AS number FROM busy b GROUP BY 1) k
      ON k.type = p.type AND l.type_limit IS NOT NULL
  ), next AS (
    SELECT r.*, q.directive_id, q.priority, q.due_at,
           row_number() OVER (PARTITION BY r.tenant_schema ORDER BY q.priority DESC, q.due_at)
             AS tenant_turn
    FROM room r CROSS JOIN LATERAL (
      SELECT q.directive_id, q.priority, q.due_at FROM fleetprompt.directive_queue q
      WHERE q.target = 'platform' AND q.tenant_schema = r.tenant_schema AND q.type = r.type
        AND q.due_at <= now()
      ORDER BY q.priority DESC, q.due_at LIMIT greatest(0, least(most, r.tenant_room, r.type_room))) q
  ), turns AS (
    SELECT n.*, row_number() OVER (
             PARTITION BY n.type ORDER BY n.tenant_busy + n.tenant_turn, n.priority DESC, n.due_at)
             AS type_turn
    FROM next n WHERE n.tenant_turn <= n.tenant_room
  ), chosen AS (
    SELECT q.tenant_schema, q.directive_id
    FROM turns t JOIN fleetprompt.directive_queue q USING (tenant_schema, directive_id)
    WHERE t.type_turn <= t.type_room
    ORDER BY t.tenant_busy + t.tenant_turn, t.priority DESC, t.due_at
    LIMIT most FOR UPDATE OF q SKIP LOCKED
  )
  UPDATE fleetprompt.directive_queue q SET busy = true, due_at = now() + hold
  FROM chosen c WHERE q.tenant_schema = c.tenant_schema AND q.directive_id = c.directive_id
  RETURNING q.tenant_schema, q.directive_id;
END $$;
"""

TRIGGERS = """
CREATE OR REPLACE FUNCTION fleetprompt.directives_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO directive_transitions (id, directive_id, from_state, to_state, attempt, changed_by)
    SELECT fleetprompt.uuid7(), d.id, step.from_state, step.to_state, d.attempt, d.changed_by
    FROM inserted d
    CROSS JOIN LATERAL (VALUES (1, '', 'requested'), (2, 'requested', d.state))
      AS step (number, from_state, to_state)
    WHERE step.number = 1 OR d.state <> 'requested'
    ORDER BY step.number;
  INSERT INTO fleetprompt.directive_queue
      (tenant_schema, directive_id, type, target, priority, due_at, expires_at)
    SELECT TG_TABLE_SCHEMA, d.id, d.type, d.target, d.priority, d.available_at, d.expires_at
    FROM inserted d WHERE d.state = 'pending';
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION fleetprompt.directives_updated() RETURNS trigger LANGUAGE plpgsql AS $$
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
      (tenant_schema, directive_id, type, target, priority, due_at, busy, expires_at)
    SELECT TG_TABLE_SCHEMA, after.id, after.type, after.target, after.priority,
           CASE after.state WHEN 'running' THEN after.lease_expires_at ELSE after.available_at END,
           after.state = 'running', after.expires_at
    FROM after WHERE after.state IN ('pending', 'running')
    ON CONFLICT (tenant_schema, directive_id)
      DO UPDATE SET due_at = excluded.due_at, priority = excluded.priority, busy = excluded.busy,
                    expires_at = excluded.expires_at;
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    """Add columns, indexes, workers and the function that reserves."""
    for part in (QUEUE, WORKERS, RESERVE, TRIGGERS):
        op.execute(part)
