"""What workers counted, for metrics, and what waits for people's word."""

from fleetprompt.db.migrations import op
from fleetprompt.db.migrations.platform.versions.p0001_platform import ROW_SECURITY

revision = "p0004"
down_revision = "p0003"

TABLES = """
CREATE TABLE fleetprompt.worker_processes (
    id            uuid PRIMARY KEY,
    role          text NOT NULL CHECK (role IN ('api', 'worker')),
    state         jsonb NOT NULL DEFAULT '{}',
    last_start_at timestamptz,
    started_at    timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(),
    ended_at      timestamptz
);

-- Each process has rows of its own, so that nobody waits for anybody. The rows of the process with the
-- id 0 hold what ended processes had counted.
CREATE TABLE fleetprompt.worker_counters (
    process_id uuid NOT NULL,
    metric     text NOT NULL,
    labels     text[] NOT NULL,
    amounts    double precision[] NOT NULL,
    flush      bigint NOT NULL,
    PRIMARY KEY (process_id, metric, labels)
);

CREATE TABLE fleetprompt.approvals_waiting (
    tenant_schema text NOT NULL DEFAULT current_user,
    approval_id   uuid NOT NULL,
    type          text NOT NULL,
    created_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_schema, approval_id)
);

-- How yesterday's digests ended, without reading all there ever were.
CREATE INDEX schedule_slots_settled ON fleetprompt.schedule_slots (settled_at) WHERE settled_at IS NOT NULL;
"""

# The trigger itself is in each tenant's schema (t0010).
TRIGGER = """
CREATE FUNCTION fleetprompt.keep_approvals_waiting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'INSERT' THEN
    DELETE FROM fleetprompt.approvals_waiting
      WHERE tenant_schema = TG_TABLE_SCHEMA AND approval_id = OLD.id;
  END IF;
  IF TG_OP <> 'DELETE' AND NEW.state = 'waiting' THEN
    INSERT INTO fleetprompt.approvals_waiting (tenant_schema, approval_id, type, created_at)
      VALUES (TG_TABLE_SCHEMA, NEW.id, NEW.directive_type, NEW.created_at);
  END IF;
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    """Create the tables; processes' are the application's alone, approvals' each tenant's own rows."""
    op.execute(TABLES)
    op.execute(ROW_SECURITY.format(table="approvals_waiting"))
    op.execute(TRIGGER)
