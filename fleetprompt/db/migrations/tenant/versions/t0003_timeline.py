"""Indexes for "what happened?": causes and consequences, and executions that agents report."""

from fleetprompt.db.migrations import op

revision = "t0003"
down_revision = "t0002"

# Most signals from outside name no cause and no execution, so that these indexes cost them nothing.
INDEXES = """
CREATE INDEX signals_causation ON signals (causation_id) WHERE causation_id IS NOT NULL;
CREATE INDEX directives_causation ON directives (causation_id) WHERE causation_id IS NOT NULL;
CREATE INDEX executions_causation ON executions (causation_id) WHERE causation_id IS NOT NULL;
CREATE INDEX signals_execution ON signals ((data ->> 'execution_id'), id)
    WHERE type IN ('agent.execution.started', 'agent.execution.completed', 'agent.execution.failed');
CREATE INDEX signals_executions ON signals (id)
    WHERE type IN ('agent.execution.started', 'agent.execution.completed', 'agent.execution.failed');
"""


def upgrade() -> None:
    """Create the indexes."""
    op.execute(INDEXES)
