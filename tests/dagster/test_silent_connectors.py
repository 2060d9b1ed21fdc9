"""Connectors that fall silent are noted by a sensor, whoever looks at them."""

from datetime import timedelta

from fleetprompt.clock import system_clock
from fleetprompt.connectors.expectations import SILENT_AFTER
from fleetprompt.connectors.models import Connector
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.signals.emit import NewSignal, emit
from tests.dagster.conftest import Bench


def test_a_silent_connector_is_noted_at_the_first_tick_after_it_was_missed(bench: Bench) -> None:
    tenants = [bench.tenant(), bench.tenant()]

    async def beat(database: Database) -> None:
        for tenant in tenants:
            connector_id = new_id()
            async with database.tenant(tenant.schema) as session:
                session.add(Connector(id=connector_id, package="p", label="l", created_by="t"))
                await session.flush()
                metadata = {"connector_id": str(connector_id)}
                await emit(session, NewSignal("connector.heartbeat", {}, metadata=metadata))

    bench.run(beat)
    bench.now = lambda: system_clock() + timedelta(seconds=5)
    assert "0 have fallen silent" in bench.sensor("silent_connectors").skip_message
    bench.now = lambda: system_clock() + SILENT_AFTER
    assert "; 2 have fallen silent" in bench.sensor("silent_connectors").skip_message
    assert "Looked at 0 connectors" in bench.sensor("silent_connectors").skip_message
    for tenant in tenants:
        (row,) = bench.sql("SELECT state FROM connectors", tenant.schema)
        assert row.state == "silent"
