"""Whether work moves: what makes it stand still, and what must not be taken for it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.telemetry import moving
from fleetprompt.telemetry.process import PROCESS, ListeningState, ProcessState
from fleetprompt.telemetry.reporting import Reporter
from fleetprompt.tenants.service import Tenant
from tests.api.support import calling

_QUEUED = text(
    "INSERT INTO fleetprompt.directive_queue (tenant_schema, directive_id, type, target, priority, due_at)"
    " VALUES (:schema, :id, 'digest.run', :target, 0, now() - make_interval(secs => :age))"
)


async def _clean(database: Database) -> None:
    async with database.platform() as session:
        for table in ("directive_queue", "schedule_slots", "stale_partitions", "worker_processes"):
            await session.execute(text(f"DELETE FROM fleetprompt.{table}"))


@pytest.fixture
async def nothing_due(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No work is due or was begun before the test, and none of the test's is left after it."""
    monkeypatch.setattr(PROCESS, "last_start_at", None)
    await _clean(database)
    yield
    await _clean(database)


async def queued(
    database: Database, tenant: Tenant, *, age: float, target: str = "platform"
) -> UUID:
    """A row of the queue that has been due for ``age`` seconds; negative: that will be."""
    id_ = new_id()
    async with database.platform() as session:
        await session.execute(
            _QUEUED, {"schema": tenant.schema, "id": id_, "target": target, "age": age}
        )
    return id_


async def asked(app: FastAPI) -> tuple[int, dict[str, dict[str, Any]]]:
    """The status, and the checks by name."""
    async with calling(app) as client:
        answer = await client.get("/health/moving")
    found = answer.json()
    assert (found["status"] == "moving") == (answer.status_code == 200)
    return answer.status_code, {one["name"]: one for one in found["checks"]}


@pytest.mark.usefixtures("nothing_due")
async def test_with_nothing_due_all_moves(app: FastAPI) -> None:
    status, checks = await asked(app)
    assert status == 200
    assert set(checks) == {
        "directives", "digests", "lake", "listener_signals", "listener_directives",
    }  # fmt: skip
    assert checks["directives"]["seconds"] is None


@pytest.mark.usefixtures("nothing_due")
async def test_directives_that_nobody_starts_are_told_with_what_to_do(
    app: FastAPI, database: Database, tenant: Tenant
) -> None:
    await queued(database, tenant, age=moving.DIRECTIVE_LIMIT + 30)
    status, checks = await asked(app)
    assert status == 503
    assert not checks["directives"]["ok"]
    assert checks["directives"]["seconds"] >= checks["directives"]["limit_seconds"]
    assert "drain_directives" in checks["directives"]["meaning"]
    assert checks["digests"]["ok"]


@pytest.mark.usefixtures("nothing_due")
async def test_directives_of_a_connector_that_is_away_are_no_standstill(
    app: FastAPI, database: Database, tenant: Tenant
) -> None:
    await queued(database, tenant, age=86_400, target="laptop")
    assert (await asked(app))[0] == 200


@pytest.mark.usefixtures("nothing_due")
async def test_what_is_scheduled_for_later_is_no_standstill(
    app: FastAPI, database: Database, tenant: Tenant
) -> None:
    await queued(database, tenant, age=-3600)
    status, checks = await asked(app)
    assert status == 200
    assert checks["directives"]["seconds"] is None


@pytest.mark.usefixtures("nothing_due")
async def test_a_long_queue_that_a_worker_works_off_moves(
    app: FastAPI, database: Database, tenant: Tenant
) -> None:
    """One tenant's backlog may be old; what counts is that something was begun a moment ago."""
    await queued(database, tenant, age=3600)
    worker = ProcessState()
    worker.started()
    await Reporter(database, "worker", process=worker).flush()
    status, checks = await asked(app)
    assert status == 200
    assert "worked off" in checks["directives"]["meaning"]
    async with database.platform() as session:
        await session.execute(
            text(
                "UPDATE fleetprompt.worker_processes SET last_start_at = now() - interval '5 minutes'"
            )
        )
    assert (await asked(app))[0] == 503


@pytest.mark.usefixtures("nothing_due")
async def test_digests_that_nobody_asks_for_are_a_standstill(
    app: FastAPI, database: Database, tenant: Tenant
) -> None:
    async with database.platform() as session:
        await session.execute(
            text(
                "INSERT INTO fleetprompt.schedule_slots (tenant_schema, installation_id, local_date,"
                " due_at, window_start, window_end, zone) VALUES (:schema, :id, '2026-03-01',"
                " now() - interval '10 minutes', now() - interval '1 day', now(), 'UTC')"
            ),
            {"schema": tenant.schema, "id": new_id()},
        )
    status, checks = await asked(app)
    assert (status, checks["digests"]["ok"], checks["directives"]["ok"]) == (503, False, True)
    assert "due_digests" in checks["digests"]["meaning"]


@pytest.mark.usefixtures("nothing_due")
async def test_days_that_are_not_written_to_the_lake_are_a_standstill(
    app: FastAPI, database: Database, tenant: Tenant
) -> None:
    marked = text(
        "INSERT INTO fleetprompt.stale_partitions (tenant_schema, day, marked_at)"
        " VALUES (:schema, '2026-03-01', now() - make_interval(secs => :age))"
    )
    async with database.platform() as session:
        await session.execute(marked, {"schema": "org_gone", "age": moving.STALE_DAY_LIMIT * 2})
        await session.execute(marked, {"schema": tenant.schema, "age": 600})
    assert (await asked(app))[0] == 200
    async with database.platform() as session:
        await session.execute(text("DELETE FROM fleetprompt.stale_partitions"))
        await session.execute(marked, {"schema": tenant.schema, "age": moving.STALE_DAY_LIMIT + 60})
    status, checks = await asked(app)
    assert (status, checks["lake"]["ok"]) == (503, False)


@pytest.mark.usefixtures("nothing_due")
async def test_a_dead_listening_connection_does_not_look_healthy(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """research/platform.md, A6 and T11."""
    deaf = ListeningState("directives")
    monkeypatch.setattr(PROCESS, "listeners", [*PROCESS.listeners, deaf])
    assert (await asked(app))[0] == 200
    deaf.since -= moving.LISTENER_LIMIT + 1
    status, checks = await asked(app)
    assert (status, checks["listener_directives"]["ok"]) == (503, False)
    deaf.up()
    assert (await asked(app))[0] == 200


async def test_without_its_database_nothing_moves(settings: Settings) -> None:
    async with Database("postgresql://nobody@127.0.0.1:9/none", settings) as away:
        with pytest.raises(DatabaseUnavailableError):
            await moving.look(away, ProcessState())
