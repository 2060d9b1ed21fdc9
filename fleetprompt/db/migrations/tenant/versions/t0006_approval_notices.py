"""Notices of approvals: where a tenant wants them, and asking for them where an approval opens."""

from fleetprompt.db.migrations import op

revision = "t0006"
down_revision = "t0005"

NOTICES = """
-- At most one row: the installation whose Mattermost connection is used, and how much is posted.
CREATE TABLE approval_notices (
    single                boolean PRIMARY KEY DEFAULT true CHECK (single),
    enabled               boolean NOT NULL,
    installation_id       uuid NOT NULL REFERENCES installations ON DELETE CASCADE,
    channel               text,
    remind_before_seconds bigint CHECK (remind_before_seconds > 0),
    most_per_hour         bigint NOT NULL CHECK (most_per_hour BETWEEN 1 AND 100),
    changed_by            text NOT NULL,
    changed_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- How many notices went out within the hour is asked before each.
CREATE INDEX outbound_messages_notices ON outbound_messages (created_at)
    WHERE starts_with(dedupe_key, 'approval_notice:');
"""

# Whatever opens an approval (a request, a signal handler, an edit, other terms): it is told of, and
# its notices are asked for, in the same transaction. A reminder is due the configured time before the
# approval expires, and where that is most of its time, in the middle.
OPENED = """
CREATE FUNCTION approvals_opened() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, source_event_id,
                       data, metadata)
    SELECT fleetprompt.uuid7(), 'approval.requested', 'platform', a.created_at,
           'approval', a.id::text, 'approval:' || a.id,
           jsonb_build_object(
             'directive_id', d.id, 'directive_type', d.type, 'action_sha256', a.action_sha256,
             'version', a.version, 'proposed_by', a.proposed_by,
             'approvals_needed', a.policy -> 'approvals',
             'expires_at', to_char(a.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
           jsonb_strip_nulls(jsonb_build_object(
             'schema_version', 1, 'correlation_id', d.correlation_id,
             'causation_id', d.causation_id))
    FROM opened a JOIN directives d ON d.id = a.directive_id
    ORDER BY a.id;
  INSERT INTO directives (id, type, params, idempotency_key, state, actor, actor_role, changed_by,
                          correlation_id, causation_id, available_at)
    SELECT fleetprompt.uuid7(), 'approval.notify',
           jsonb_build_object('notice', step.notice, 'approval_id', a.id),
           concat_ws(':', 'approval_notice', a.id, a.version, step.suffix),
           'pending', 'platform', 'platform', 'platform',
           d.correlation_id, 'directive:' || d.id, step.due_at
    FROM opened a
    JOIN directives d ON d.id = a.directive_id
    JOIN approval_notices n ON n.enabled
    CROSS JOIN LATERAL (VALUES
        (1, 'opened', NULL, now()),
        (2, 'reminder', 'reminder',
         a.expires_at - least(make_interval(secs => n.remind_before_seconds),
                              (a.expires_at - now()) / 2))
      ) AS step (number, notice, suffix, due_at)
    WHERE step.number = 1 OR n.remind_before_seconds IS NOT NULL
    ORDER BY a.id, step.number
    ON CONFLICT (idempotency_key) DO NOTHING;
  RETURN NULL;
END $$;

CREATE TRIGGER opened AFTER INSERT ON approvals
    REFERENCING NEW TABLE AS opened FOR EACH STATEMENT EXECUTE FUNCTION approvals_opened();
"""


def upgrade() -> None:
    """Create the setting, the index for counting, and the trigger."""
    for part in (NOTICES, OPENED):
        op.execute(part)
