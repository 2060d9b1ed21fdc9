"""Connectors that fall silent: shown at once, noted once, and at the price of a look every few minutes."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, text

from fleetprompt.connectors import service
from fleetprompt.connectors.expectations import SILENT_AFTER
from fleetprompt.connectors.models import Connector, WatchedConnector
from fleetprompt.connectors.schemas import view_of
from fleetprompt.connectors.silence import note_silent
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.ids import new_id
from fleetprompt.packages.models import Installation
from fleetprompt.settings import Settings
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.signals.models import Signal
from fleetprompt.tenants.service import Tenant, delete_tenant

ADA = Actor("user:ada", "owner")


@pytest.fixture
async def connector_id(database: Database, tenant: Tenant) -> UUID:
    """A connector that has just beaten, of an installed package."""
    async with database.tenant(tenant.schema) as session:
        session.add(
            Installation(
                id=new_id(),
                package="proton_mail_edge_connector",
                version="1.0.0",
                state="installed",
                config_checksum="0" * 64,
            )
        )
        made = Connector(
            id=new_id(), package="proton_mail_edge_connector", label="Support", created_by="t"
        )
        session.add(made)
    await _beat(database, tenant, made.id)
    return made.id


async def _beat(database: Database, tenant: Tenant, connector_id: UUID) -> None:
    async with database.tenant(tenant.schema) as session:
        metadata = {"connector_id": str(connector_id)}
        await emit(session, NewSignal("connector.heartbeat", {"problems": []}, metadata=metadata))


async def _states(database: Database, tenant: Tenant) -> tuple[str, str]:
    async with database.tenant(tenant.schema) as session:
        (connector,) = await session.scalars(select(Connector))
        (installation,) = await session.scalars(select(Installation))
        return connector.state, installation.state


async def _look_at(database: Database, connector_id: UUID) -> datetime | None:
    async with database.platform() as session:
        found: datetime | None = await session.scalar(
            select(WatchedConnector.look_at).where(WatchedConnector.connector_id == connector_id)
        )
        return found


async def _times_told(database: Database, tenant: Tenant) -> int:
    async with database.tenant(tenant.schema) as session:
        told = await session.scalars(select(Signal).where(Signal.type == "connector.silent"))
        return len(told.all())


async def test_one_that_is_missed_long_enough_is_noted_once_and_is_back_with_its_next_heartbeat(
    database: Database, tenant: Tenant, connector_id: UUID
) -> None:
    assert await _states(database, tenant) == ("connected", "connected")
    soon = datetime.now(UTC) + SILENT_AFTER - timedelta(seconds=20)
    late = datetime.now(UTC) + SILENT_AFTER + timedelta(seconds=1)
    await note_silent(database, soon)
    assert await _states(database, tenant) == ("connected", "connected")
    await note_silent(database, late)
    assert await _states(database, tenant) == ("silent", "degraded")
    assert await _look_at(database, connector_id) is None
    await note_silent(database, late + SILENT_AFTER)
    assert await _times_told(database, tenant) == 1

    await _beat(database, tenant, connector_id)
    assert await _states(database, tenant) == ("connected", "connected")
    await note_silent(database, datetime.now(UTC) + SILENT_AFTER + timedelta(seconds=1))
    assert await _states(database, tenant) == ("silent", "degraded")
    assert await _times_told(database, tenant) == 2


async def test_silence_is_shown_before_anybody_has_noted_it(
    database: Database, tenant: Tenant, connector_id: UUID
) -> None:
    async with database.tenant(tenant.schema) as session:
        found = await service.get(session, connector_id)
    seen = found.last_seen_at
    assert seen is not None
    almost = seen + SILENT_AFTER - timedelta(microseconds=1)
    assert view_of(found, None, almost).state == "connected"
    assert view_of(found, None, seen + SILENT_AFTER).state == "silent"


async def test_heartbeats_leave_the_time_of_the_next_look_alone_and_a_look_moves_it(
    database: Database, tenant: Tenant, connector_id: UUID
) -> None:
    first = await _look_at(database, connector_id)
    assert first is not None
    for _ in range(3):
        await _beat(database, tenant, connector_id)
    assert await _look_at(database, connector_id) == first
    await note_silent(database, datetime.now(UTC) + timedelta(seconds=1))
    moved = await _look_at(database, connector_id)
    assert moved is not None
    assert moved - first > SILENT_AFTER - timedelta(seconds=30)
    assert (await note_silent(database, datetime.now(UTC) + timedelta(seconds=2))).connectors == 0


async def test_a_revoked_connector_is_not_missed_and_what_it_says_changes_nothing(
    database: Database, tenant: Tenant, connector_id: UUID
) -> None:
    await service.revoke(database, tenant, connector_id, ADA)
    assert await _look_at(database, connector_id) is None
    await _beat(database, tenant, connector_id)
    await note_silent(database, datetime.now(UTC) + 2 * SILENT_AFTER)
    assert (await _states(database, tenant))[0] == "revoked"
    assert await _times_told(database, tenant) == 0


async def test_connectors_of_a_tenant_that_is_gone_are_forgotten(
    database: Database, settings: Settings, tenant: Tenant, connector_id: UUID
) -> None:
    await delete_tenant(settings, slug=tenant.slug, typed=tenant.slug)
    assert await _look_at(database, connector_id) is not None
    await note_silent(database, datetime.now(UTC) + SILENT_AFTER)
    assert await _look_at(database, connector_id) is None


@pytest.mark.parametrize(
    "name", [None, "laptop", "0" * 36, "ffffffff-ffff-ffff-ffff-ffffffffffff", "'; --"]
)
async def test_signals_of_connectors_that_nobody_made_here_are_stored_and_change_nothing(
    database: Database, tenant: Tenant, connector_id: UUID, name: str | None
) -> None:
    """A connector may have a key that was made by hand, under a name of its own."""
    async with database.tenant(tenant.schema) as session:
        before = (await service.get(session, connector_id)).last_seen_at
        metadata = {} if name is None else {"connector_id": name}
        made = await emit(session, NewSignal("connector.heartbeat", {}, metadata=metadata))
    async with database.tenant(tenant.schema) as session:
        assert (await session.get_one(Signal, made)).type == "connector.heartbeat"
        assert (await service.get(session, connector_id)).last_seen_at == before


async def test_a_connectors_heartbeats_update_its_row_in_place(
    database: Database, tenant: Tenant, connector_id: UUID
) -> None:
    """No index entry is written for a heartbeat: PostgreSQL counts the updates as heap-only."""
    for _ in range(5):
        await _beat(database, tenant, connector_id)
    async with database.tenant(tenant.schema) as session:
        await session.execute(text("SELECT pg_stat_force_next_flush()"))
    async with database.tenant(tenant.schema) as session:
        updates, in_place = (
            await session.execute(
                text(
                    "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
                    " WHERE schemaname = :schema AND relname = 'connectors'"
                ),
                {"schema": tenant.schema},
            )
        ).one()
    assert in_place == updates
