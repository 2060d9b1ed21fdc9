"""Approvals: what was shown to people, what they decided, and who may decide."""

from fleetprompt.db.migrations import op

revision = "t0002"
down_revision = "t0001"

APPROVALS = """
-- A tenant's own terms for a directive type, in place of those that the type comes with.
CREATE TABLE approval_policies (
    directive_type        text PRIMARY KEY,
    required              boolean NOT NULL,
    roles                 text[] NOT NULL CHECK (cardinality(roles) > 0
                            AND roles <@ ARRAY['owner', 'admin', 'member']),
    approvals             bigint NOT NULL CHECK (approvals BETWEEN 1 AND 10),
    proposer_may_approve  boolean NOT NULL,
    expires_after_seconds bigint NOT NULL CHECK (expires_after_seconds > 0),
    changed_by            text NOT NULL,
    changed_at            timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One row for each version of a directive's action: an edit adds a row and never changes one.
CREATE TABLE approvals (
    id                uuid PRIMARY KEY,
    directive_id      uuid NOT NULL REFERENCES directives ON DELETE CASCADE,
    directive_type    text NOT NULL,
    version           bigint NOT NULL CHECK (version > 0),
    action            text NOT NULL,
    action_sha256     text NOT NULL CHECK (length(action_sha256) = 64),
    rendering_version bigint NOT NULL,
    policy            jsonb NOT NULL,
    policy_sha256     text NOT NULL CHECK (length(policy_sha256) = 64),
    proposed_by       text NOT NULL,
    state             text NOT NULL CHECK (state IN ('waiting', 'approved', 'rejected', 'expired',
                        'superseded', 'invalidated', 'withdrawn')),
    expires_at        timestamptz NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at        timestamptz,
    settled_by        text,
    reason            text,
    UNIQUE (directive_id, version),
    CHECK ((state = 'waiting') = (settled_at IS NULL))
);
CREATE UNIQUE INDEX approvals_waiting ON approvals (directive_id) WHERE state = 'waiting';
CREATE INDEX approvals_expiry ON approvals (expires_at) WHERE state = 'waiting';

CREATE TABLE approval_decisions (
    id            uuid PRIMARY KEY,
    approval_id   uuid NOT NULL REFERENCES approvals ON DELETE CASCADE,
    decision      text NOT NULL CHECK (decision IN ('approve', 'reject')),
    actor         text NOT NULL,
    user_id       uuid NOT NULL,
    actor_role    text NOT NULL,
    action_sha256 text NOT NULL,
    reason        text,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (approval_id, user_id, decision)
);
"""

# What was shown and what was decided cannot be rewritten, only settled.
APPEND_ONLY = """
DO $do$ BEGIN
  EXECUTE format('REVOKE UPDATE, DELETE ON approvals, approval_decisions FROM %I', current_schema());
  EXECUTE format('GRANT UPDATE (state, settled_at, settled_by, reason) ON approvals TO %I',
                 current_schema());
END $do$;
"""

# Members are in the platform's schema, which a tenant's transaction does not see. This shows the
# roles of this tenant's active members alone, so that they can be checked where a directive is claimed,
# under its row lock.
APPROVER_ROLES = """
DO $do$ BEGIN
  EXECUTE format($format$
    CREATE FUNCTION approver_roles(people uuid[]) RETURNS TABLE (user_id uuid, role text)
      LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
        SELECT m.user_id, m.role
        FROM fleetprompt.members m JOIN fleetprompt.organizations o ON o.id = m.organization_id
        WHERE o.schema_name = %1$L AND m.active AND m.user_id = ANY(people) $$;
    REVOKE ALL ON FUNCTION approver_roles(uuid[]) FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION approver_roles(uuid[]) TO %1$I;
  $format$, current_schema());
END $do$;
"""


def upgrade() -> None:
    """Create the tables, take back the right to rewrite them, and let roles be looked up."""
    for part in (APPROVALS, APPEND_ONLY, APPROVER_ROLES):
        op.execute(part)
