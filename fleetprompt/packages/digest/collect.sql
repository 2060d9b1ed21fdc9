-- name: horizon
-- Every transaction below this id has ended: what it stored is visible from here on, for ever.
SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)

-- name: floor
-- The least transaction that stored a signal before the horizon but not before the window's end:
-- where the next digest starts to read.
SELECT min(txid) AS txid FROM signals WHERE txid >= :floor AND txid < :horizon AND inserted_at >= :end

-- name: nothing
-- Whether there is nothing that the facts could tell of: far cheaper to ask, for windows where it is so.
SELECT NOT EXISTS (
         SELECT FROM signals
         WHERE txid >= :floor AND txid < :horizon AND inserted_at < :end
           AND (txid >= :before_horizon OR inserted_at >= :before_end))
   AND NOT EXISTS (SELECT FROM executions WHERE finished_at >= :start AND finished_at < :end)
   AND NOT EXISTS (
         SELECT FROM approvals
         WHERE created_at < :end AND (settled_at IS NULL OR settled_at >= :end))

-- name: sources
-- members: the signals that this digest counts: in its cut and not in the one before.
-- directive_ends: the last state that each directive reached.
-- reported: executions that external agents reported and that have no row of their own.
-- finished: executions of the platform that ended in the window.
WITH members AS (
  SELECT id, type, occurred_at, subject_id, data, correlation_id
  FROM signals
  WHERE txid >= :floor AND txid < :horizon AND inserted_at < :end
    AND (txid >= :before_horizon OR inserted_at >= :before_end)
),
directive_ends AS (
  SELECT DISTINCT ON (coalesce(subject_id, CAST(id AS text)))
         id, type, occurred_at, data, correlation_id, substr(type, 11) AS state
  FROM members
  WHERE type >= 'directive.' AND type < 'directive/'
  ORDER BY coalesce(subject_id, CAST(id AS text)), occurred_at DESC, id DESC
),
agents AS (
  SELECT DISTINCT ON (coalesce(data ->> 'execution_id', CAST(id AS text)))
         substr(type, 17) AS state, correlation_id, data,
         CASE WHEN data ->> 'execution_id' ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'
              THEN CAST(data ->> 'execution_id' AS uuid) END AS execution
  FROM members
  WHERE type IN ('agent.execution.completed', 'agent.execution.failed')
  ORDER BY coalesce(data ->> 'execution_id', CAST(id AS text)), occurred_at DESC, id DESC
),
reported AS (
  SELECT a.state, a.correlation_id,
         coalesce(a.data ->> 'agent', a.data ->> 'kind', 'agent') AS kind,
         CASE WHEN jsonb_typeof(a.data -> 'cost_usd') = 'number'
              THEN CAST(a.data ->> 'cost_usd' AS numeric) END AS cost_usd,
         CASE WHEN jsonb_typeof(a.data -> 'tokens_in') = 'number'
              THEN CAST(a.data ->> 'tokens_in' AS numeric) END AS tokens_in,
         CASE WHEN jsonb_typeof(a.data -> 'tokens_out') = 'number'
              THEN CAST(a.data ->> 'tokens_out' AS numeric) END AS tokens_out
  FROM agents a
  WHERE NOT EXISTS (SELECT FROM executions e WHERE e.id = a.execution)
),
finished AS (
  SELECT id, kind, state, finished_at, correlation_id, dagster_run_id, cost_usd,
         CAST(tokens_in AS numeric) AS tokens_in, CAST(tokens_out AS numeric) AS tokens_out,
         error_kind, error_message
  FROM executions
  WHERE finished_at >= :start AND finished_at < :end
    AND state IN ('completed', 'failed', 'cancelled')
)

-- name: types
-- Signals by type. The families that outcomes and approvals tell of, the digests' own, and the
-- bookkeeping of connections are not listed again;
-- the types of mail, chat and connectors have lines of their own and are never in the rest.
WITH counted AS (
  SELECT type, count(*) AS count,
         count(*) FILTER (WHERE occurred_at < :start) AS late,
         min(occurred_at) FILTER (WHERE occurred_at < :start) AS earliest_late,
         count(*) FILTER (WHERE starts_with(correlation_id, 'digest:')) AS own,
         type LIKE ANY (ARRAY['package.%', 'directive.%', 'agent.execution.%', 'workflow.run.%',
                              'mattermost.digest.%', 'mattermost.message.%',
                              'email.digest.%', 'email.message.%', 'value.digest.%',
                              'approval.%', 'integration.credential.%']) AS told
  FROM members GROUP BY type
),
ranked AS (
  SELECT *, row_number() OVER (
           PARTITION BY told ORDER BY type = ANY(:surfaces) DESC, count DESC, type) AS place
  FROM counted
)
SELECT CASE WHEN place <= :most THEN type END AS name, CAST(sum(count) AS bigint) AS count, told,
       count(*) AS names, CAST(sum(late) AS bigint) AS late, min(earliest_late) AS earliest_late,
       CAST(sum(own) AS bigint) AS own
FROM ranked GROUP BY 1, told

-- name: outcomes
-- What ended and how. The digest's own runs are told only when they failed.
WITH ended AS (
  SELECT 'package' AS family, data ->> 'package' AS name, substr(type, 9) AS state, correlation_id
  FROM members
  WHERE type >= 'package.' AND type < 'package/'
    AND (type LIKE '%.completed' OR type LIKE '%.failed')
  UNION ALL
  SELECT 'directive', data ->> 'directive_type', state, correlation_id FROM directive_ends
  UNION ALL
  SELECT 'run', data ->> 'job', substr(type, 14), correlation_id
  FROM members WHERE type IN ('workflow.run.completed', 'workflow.run.failed')
  UNION ALL
  SELECT 'execution', kind, state, correlation_id FROM finished
  UNION ALL
  SELECT 'execution', kind, state, correlation_id FROM reported
),
counted AS (
  SELECT family, state, left(coalesce(name, ''), 120) AS name, count(*) AS count
  FROM ended
  WHERE correlation_id IS NULL OR NOT starts_with(correlation_id, 'digest:')
     OR state IN ('failed', 'unknown') OR state LIKE '%.failed'
  GROUP BY 1, 2, 3
),
ranked AS (
  SELECT *, row_number() OVER (PARTITION BY family, state ORDER BY count DESC, name) AS place
  FROM counted
)
SELECT family, state, CASE WHEN place <= :most THEN name END AS name,
       CAST(sum(count) AS bigint) AS count, count(*) AS names
FROM ranked GROUP BY family, state, 3

-- name: errors
-- Failures by type, subject and kind. One mishap is often told several times under one correlation
-- id: by the signal of what failed, by its directive, its execution and its run. Only the nearest
-- to the cause is kept, unless there are more of the farther ones than it can explain.
WITH failures AS (
  SELECT CASE WHEN type LIKE 'workflow.run.%' THEN 3 ELSE 0 END AS distance, id, type, occurred_at,
         data, correlation_id, data ->> 'error_kind' AS kind, data ->> 'error_message' AS message,
         coalesce(data ->> 'package', data ->> 'job', data ->> 'agent', data ->> 'kind', '') AS what,
         data ->> 'execution_id' AS execution_id, data ->> 'run_id' AS run_id
  FROM members
  WHERE type LIKE '%.failed' AND type <> 'directive.failed'
  UNION ALL
  -- A folder that was numbered anew is told as an error, but costs nothing.
  SELECT 0, id, type, occurred_at, data, correlation_id, data ->> 'kind', data ->> 'message',
         coalesce(data ->> 'code', ''), NULL, NULL
  FROM members
  WHERE type = 'connector.error' AND data ->> 'code' IS DISTINCT FROM 'folder_renumbered'
  UNION ALL
  SELECT 1, id, type, occurred_at, data, correlation_id, data ->> 'error_kind',
         data ->> 'error_message', coalesce(data ->> 'directive_type', ''), NULL, NULL
  FROM directive_ends WHERE state IN ('failed', 'unknown')
  UNION ALL
  SELECT 2, id, 'execution.failed', finished_at, NULL, correlation_id, error_kind, error_message,
         kind, CAST(id AS text), dagster_run_id
  FROM finished WHERE state = 'failed'
),
told AS (
  SELECT *, coalesce(correlation_id, CAST(id AS text)) AS story FROM failures
),
weighed AS (
  SELECT *, min(distance) OVER (PARTITION BY story) AS nearest,
         count(*) OVER (PARTITION BY story, distance) AS alike
  FROM told
),
explained AS (
  SELECT *, max(alike) FILTER (WHERE distance = nearest) OVER (PARTITION BY story) AS causes
  FROM weighed
),
named AS (
  SELECT type, left(what, 120) AS what, left(coalesce(kind, 'unknown'), 40) AS kind, id,
         occurred_at, left(coalesce(message, ''), 400) AS message, left(correlation_id, 512) AS
         correlation_id, left(execution_id, 64) AS execution_id, left(run_id, 64) AS run_id
  FROM explained WHERE distance = nearest OR alike > causes
),
numbered AS (
  SELECT *, row_number() OVER (PARTITION BY type, what, kind ORDER BY occurred_at DESC, id DESC) = 1
            AS newest
  FROM named
),
counted AS (
  SELECT type, what, kind, count(*) AS count, min(occurred_at) AS first, max(occurred_at) AS last,
         max(message) FILTER (WHERE newest) AS message,
         max(correlation_id) FILTER (WHERE newest) AS correlation_id,
         max(execution_id) FILTER (WHERE newest) AS execution_id,
         max(run_id) FILTER (WHERE newest) AS run_id
  FROM numbered GROUP BY type, what, kind
),
ranked AS (
  SELECT *, row_number() OVER (ORDER BY count DESC, type, what, kind) <= :most AS listed FROM counted
)
SELECT type AS name, what, kind, count, first, last, CAST(1 AS bigint) AS names, message,
       correlation_id, execution_id, run_id
FROM ranked WHERE listed
UNION ALL
SELECT NULL, '', '', CAST(sum(count) AS bigint), min(first), max(last), count(*), '', NULL, NULL, NULL
FROM ranked WHERE NOT listed HAVING count(*) > 0

-- name: waiting
-- Whose approval was still asked for when the window ended; versions of one directive count once.
SELECT left(directive_type, 120) AS name, count(DISTINCT directive_id) AS count,
       min(created_at) AS since, min(expires_at) AS expires
FROM approvals
WHERE created_at < :end AND (settled_at IS NULL OR settled_at >= :end)
GROUP BY directive_type

-- name: usage
-- What executions cost, as far as they say so; figures that no execution can have are passed over.
WITH used AS (
  SELECT cost_usd, tokens_in, tokens_out FROM finished
  UNION ALL SELECT cost_usd, tokens_in, tokens_out FROM reported
)
SELECT sum(cost_usd) FILTER (WHERE cost_usd BETWEEN 0 AND 1000000000) AS cost_usd,
       CAST(trunc(sum(tokens_in) FILTER (WHERE tokens_in BETWEEN 0 AND 1000000000000)) AS bigint)
         AS tokens_in,
       CAST(trunc(sum(tokens_out) FILTER (WHERE tokens_out BETWEEN 0 AND 1000000000000)) AS bigint)
         AS tokens_out
FROM used
