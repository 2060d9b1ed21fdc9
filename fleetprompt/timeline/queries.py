"""The timeline's statements. Each takes arrays, so that one plan serves any number of ids.

Every part of a union is bounded before it is sorted, and reads an index: by correlation id, by
causation id, by the parent's id or by primary key.
"""

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text, Uuid

_TEXTS = ARRAY(Text())
_IDS = ARRAY(Uuid())

# Whose id this is, and under which correlation id it stands.
FIND = text(
    """
    SELECT id, correlation_id FROM signals WHERE id = :id
    UNION ALL SELECT id, correlation_id FROM directives WHERE id = :id
    UNION ALL SELECT id, correlation_id FROM executions WHERE id = :id
    UNION ALL SELECT id, correlation_id FROM replays WHERE id = :id
    """
)

# Everything of the correlation ids in ``chains`` and of the objects in ``loose``, which have none: the
# first ``most`` by time, each with what is shown of it, and how many there are. A lateral part is
# a loop over an index whatever the planner guesses of the size of its parent.
GATHER = text(
    """
    WITH asked AS MATERIALIZED (
      (SELECT id, created_at, correlation_id, causation_id FROM directives
       WHERE correlation_id = ANY(:chains) LIMIT :scan)
      UNION
      SELECT id, created_at, correlation_id, causation_id FROM directives WHERE id = ANY(:loose)
    ),
    shown AS MATERIALIZED (
      SELECT v.id, v.created_at, v.settled_at, v.state, a.correlation_id
      FROM asked a CROSS JOIN LATERAL
        (SELECT * FROM approvals WHERE directive_id = a.id LIMIT :scan) AS v
    ),
    ran AS MATERIALIZED (
      (SELECT id, requested_at, started_at, finished_at, state, correlation_id, causation_id
       FROM executions WHERE correlation_id = ANY(:chains) LIMIT :scan)
      UNION
      SELECT id, requested_at, started_at, finished_at, state, correlation_id, causation_id
      FROM executions WHERE id = ANY(:loose)
      UNION
      SELECT e.id, e.requested_at, e.started_at, e.finished_at, e.state, e.correlation_id,
             e.causation_id
      FROM asked a CROSS JOIN LATERAL
        (SELECT * FROM executions WHERE directive_id = a.id LIMIT :scan) AS e
    ),
    sent AS MATERIALIZED (
      (SELECT id, created_at, sending_at, settled_at, state, correlation_id
       FROM outbound_messages WHERE correlation_id = ANY(:chains) LIMIT :scan)
      UNION
      SELECT m.id, m.created_at, m.sending_at, m.settled_at, m.state, m.correlation_id
      FROM (SELECT id FROM ran WHERE correlation_id IS NULL) AS r CROSS JOIN LATERAL
        (SELECT * FROM outbound_messages WHERE execution_id = r.id LIMIT :scan) AS m
    ),
    moments AS (
      (SELECT 0 AS rank, 'signal' AS kind, id, CAST(NULL AS bigint) AS line, occurred_at AS at,
              0 AS step, 'told' AS moment, correlation_id, causation_id
       FROM signals WHERE correlation_id = ANY(:chains) LIMIT :scan)
      UNION ALL
      SELECT 0, 'signal', id, NULL, occurred_at, 0, 'told', correlation_id, causation_id
      FROM signals WHERE id = ANY(:loose)
      UNION ALL
      SELECT -1, 'replay', r.id, NULL, m.at, m.step, m.moment, r.correlation_id, NULL
      FROM (SELECT * FROM replays WHERE correlation_id = ANY(:chains) LIMIT :scan) AS r
      CROSS JOIN LATERAL
        (VALUES (0, 'asked', r.asked_at), (1, 'started', r.started_at),
                (2, r.state, r.finished_at)) AS m (step, moment, at)
      WHERE m.at IS NOT NULL
      UNION ALL
      SELECT 1, 'directive', id, NULL, created_at, 0, 'asked', correlation_id, causation_id
      FROM asked
      UNION ALL
      SELECT 2, 'transition', t.id, NULL, t.at, CAST(t.from_state <> '' AS integer),
             t.to_state, a.correlation_id, NULL
      FROM asked a CROSS JOIN LATERAL
        (SELECT * FROM directive_transitions WHERE directive_id = a.id ORDER BY id LIMIT :scan) AS t
      UNION ALL
      SELECT 3, 'approval', p.id, NULL, m.at, m.step, m.moment, p.correlation_id, NULL
      FROM shown p CROSS JOIN LATERAL
        (VALUES (0, 'waiting', p.created_at), (2, p.state, p.settled_at)) AS m (step, moment, at)
      WHERE m.at IS NOT NULL
      UNION ALL
      SELECT 3, 'decision', n.id, NULL, n.at, 1, n.decision, p.correlation_id, NULL
      FROM shown p CROSS JOIN LATERAL
        (SELECT * FROM approval_decisions WHERE approval_id = p.id LIMIT :scan) AS n
      UNION ALL
      SELECT 4, 'execution', r.id, NULL, m.at, m.step, m.moment, r.correlation_id, r.causation_id
      FROM ran r CROSS JOIN LATERAL
        (VALUES (0, 'requested', r.requested_at), (1, 'started', r.started_at),
                (2, r.state, r.finished_at)) AS m (step, moment, at)
      WHERE m.at IS NOT NULL
      UNION ALL
      SELECT 5, 'log', r.id, l.id, l.at, 0, l.level, r.correlation_id, NULL
      FROM ran r CROSS JOIN LATERAL
        (SELECT * FROM execution_logs WHERE execution_id = r.id ORDER BY id LIMIT :scan) AS l
      UNION ALL
      SELECT 6, 'message', s.id, NULL, m.at, m.step, m.moment, s.correlation_id, NULL
      FROM sent s CROSS JOIN LATERAL
        (VALUES (0, 'planned', s.created_at), (1, 'sending', s.sending_at),
                (2, s.state, s.settled_at)) AS m (step, moment, at)
      WHERE m.at IS NOT NULL
    ),
    first AS MATERIALIZED (
      SELECT *, count(*) OVER () AS total,
             max(per_kind) OVER () >= :scan AS cut
      FROM (SELECT *, count(*) OVER (PARTITION BY rank) AS per_kind FROM moments) AS counted
      ORDER BY at, rank, step, id, line LIMIT :most
    )
    SELECT rank, kind, id, line, at, step, moment, correlation_id, causation_id, total, cut,
      CASE kind
        WHEN 'signal' THEN (
          SELECT jsonb_build_object('type', type, 'source', source, 'subject_type', subject_type,
            'subject_id', subject_id, 'causation_id', causation_id, 'run_id', data ->> 'run_id',
            'data', CASE WHEN octet_length(CAST(data AS text)) <= :content THEN data END)
          FROM signals WHERE id = first.id)
        WHEN 'replay' THEN (
          SELECT jsonb_build_object('state', state, 'live', live, 'selection', selection,
            'asked_by', asked_by, 'directive_id', directive_id,
            'signals_selected', signals_selected, 'signals_read', signals_read,
            'would_request', would_request, 'requested', requested, 'duplicates', duplicates,
            'refused', refused, 'handlers_failed', handlers_failed,
            'error_kind', error_kind, 'error_message', error_message)
          FROM replays WHERE id = first.id)
        WHEN 'directive' THEN (
          SELECT jsonb_build_object('type', type, 'state', state, 'actor', actor, 'attempt', attempt,
            'target', target, 'causation_id', causation_id, 'dagster_run_id', dagster_run_id,
            'error_kind', error_kind, 'error_message', error_message)
          FROM directives WHERE id = first.id)
        WHEN 'transition' THEN (
          SELECT jsonb_build_object('directive_id', t.directive_id, 'type', d.type,
            'from', t.from_state, 'to', t.to_state, 'attempt', t.attempt,
            'changed_by', t.changed_by, 'error_kind', t.error_kind,
            'error_message', t.error_message)
          FROM directive_transitions t JOIN directives d ON d.id = t.directive_id
          WHERE t.id = first.id)
        WHEN 'approval' THEN (
          SELECT jsonb_build_object('directive_id', directive_id, 'type', directive_type,
            'version', version, 'state', state, 'action_sha256', action_sha256,
            'proposed_by', proposed_by, 'settled_by', settled_by, 'reason', reason,
            'expires_at', (to_jsonb(expires_at AT TIME ZONE 'UTC') #>> '{}') || 'Z')
          FROM approvals WHERE id = first.id)
        WHEN 'decision' THEN (
          SELECT jsonb_build_object('approval_id', n.approval_id, 'directive_id', v.directive_id,
            'type', v.directive_type, 'version', v.version, 'decision', n.decision,
            'actor', n.actor, 'actor_role', n.actor_role, 'reason', n.reason)
          FROM approval_decisions n JOIN approvals v ON v.id = n.approval_id
          WHERE n.id = first.id)
        WHEN 'execution' THEN (
          SELECT jsonb_build_object('kind', kind, 'state', state, 'directive_id', directive_id,
            'installation_id', installation_id, 'causation_id', causation_id,
            'dagster_run_id', dagster_run_id, 'cost_usd', CAST(cost_usd AS text),
            'tokens_in', tokens_in, 'tokens_out', tokens_out, 'error_kind', error_kind,
            'error_message', error_message)
          FROM executions WHERE id = first.id)
        WHEN 'log' THEN (
          SELECT jsonb_build_object('execution_id', execution_id, 'level', level,
            'message', message, 'fields', fields)
          FROM execution_logs WHERE id = first.line)
        WHEN 'message' THEN (
          SELECT jsonb_build_object('provider', provider, 'destination', destination,
            'state', state, 'attempt', attempt, 'dedupe_key', dedupe_key, 'remote_id', remote_id,
            'directive_id', directive_id, 'execution_id', execution_id,
            'error_kind', error_kind, 'error_message', error_message)
          FROM outbound_messages WHERE id = first.id)
      END AS detail
    FROM first ORDER BY at, rank, step, id, line
    """
).bindparams(bindparam("chains", type_=_TEXTS), bindparam("loose", type_=_IDS))

# The correlation ids, beyond those ``known``, of what caused the objects seen (``causes``: ids) and
# of what they caused (``names``: every way in which a causation id may name them). What has no
# correlation id is named by its own.
NEIGHBOURS = text(
    """
    WITH near AS (
      SELECT id, correlation_id FROM signals WHERE id = ANY(:causes)
      UNION ALL SELECT id, correlation_id FROM directives WHERE id = ANY(:causes)
      UNION ALL SELECT id, correlation_id FROM executions WHERE id = ANY(:causes)
      UNION ALL SELECT id, correlation_id FROM replays WHERE id = ANY(:causes)
      UNION ALL
      (SELECT id, correlation_id FROM signals WHERE causation_id = ANY(:names)
         AND (correlation_id IS NULL OR correlation_id <> ALL(:known)) LIMIT :scan)
      UNION ALL
      (SELECT id, correlation_id FROM directives WHERE causation_id = ANY(:names)
         AND (correlation_id IS NULL OR correlation_id <> ALL(:known)) LIMIT :scan)
      UNION ALL
      (SELECT id, correlation_id FROM executions WHERE causation_id = ANY(:names)
         AND (correlation_id IS NULL OR correlation_id <> ALL(:known)) LIMIT :scan)
    ),
    fresh AS (
      SELECT DISTINCT correlation_id, CASE WHEN correlation_id IS NULL THEN id END AS id FROM near
      WHERE (correlation_id IS NULL AND id <> ALL(:seen)) OR correlation_id <> ALL(:known)
    )
    SELECT correlation_id, id, count(*) OVER () AS total FROM fresh
    ORDER BY correlation_id, id LIMIT :most
    """
).bindparams(
    bindparam("causes", type_=_IDS),
    bindparam("names", type_=_TEXTS),
    bindparam("known", type_=_TEXTS),
    bindparam("seen", type_=_IDS),
)
