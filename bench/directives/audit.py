"""What each directive left behind, so that a fast figure with a thin audit cannot pass."""

from collections.abc import Sequence

import psycopg

from bench.platform import Bench
from fleetprompt.db.engine import quote_identifier
from fleetprompt.tenants.service import Tenant

_COUNTS = {
    "transitions": "SELECT count(*) FROM {schema}.directive_transitions",
    "lifecycle signals": "SELECT count(*) FROM {schema}.signals WHERE type LIKE 'directive.%'",
    "executions": "SELECT count(*) FROM {schema}.executions WHERE state = 'completed'",
    "log lines": "SELECT count(*) FROM {schema}.execution_logs",
}
# requested, pending, running, succeeded: a transition and a signal of each.
_OF_EACH = {"transitions": 4, "lifecycle signals": 4, "executions": 1, "log lines": 1}


def audited(bench: Bench, tenants: Sequence[Tenant]) -> str:
    """How much of what one directive left; AssertionError if it is less than the product's audit."""
    with psycopg.connect(bench.server.owner_url) as connection:

        def count(query: str) -> int:
            found = 0
            for tenant in tenants:
                schema = quote_identifier(tenant.schema)
                row = connection.execute(query.format(schema=schema)).fetchone()
                assert row is not None
                found += row[0]
            return found

        many = count("SELECT count(*) FROM {schema}.directives")
        done = count("SELECT count(*) FROM {schema}.directives WHERE state = 'succeeded'")
        assert many == done, f"{many - done} directives of {many} have not succeeded"
        left = {what: count(query) / many for what, query in _COUNTS.items()}
    assert all(left[what] >= least for what, least in _OF_EACH.items()), left
    return ", ".join(f"{number:g} {what}" for what, number in left.items())
