"""What becomes of a tenant's connectors when their package is uninstalled."""

import pytest
from sqlalchemy import select

from fleetprompt.connectors import service
from fleetprompt.connectors.models import Connector
from fleetprompt.connectors.pairing import About, Pairing
from fleetprompt.db.engine import Database
from fleetprompt.errors import UnauthenticatedError
from fleetprompt.packages import service as packages
from fleetprompt.settings import Settings
from fleetprompt.signals.models import Signal
from fleetprompt.tenants.models import ApiKey
from fleetprompt.tenants.service import Tenant
from tests.packages.installed import ADMIN, Platform

SLUG = "proton_mail_edge_connector"


async def test_no_key_and_no_code_of_a_connector_outlives_the_package(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    platform = Platform(database, settings, tenant)
    async with database.tenant(tenant.schema) as session:
        _, installation = await packages.install(session, tenant, SLUG, {}, ADMIN)
    await platform.work()
    pairing = Pairing(database, settings)
    paired, code = await service.create(database, pairing, tenant, "Support", ADMIN)
    await pairing.exchange(code.code, About(), "192.0.2.1")
    waiting, unused = await service.create(database, pairing, tenant, "Sales", ADMIN)
    async with database.tenant(tenant.schema) as session:
        await packages.uninstall(session, tenant, installation.id, ADMIN)
    (outcome,) = await platform.work()
    assert outcome.state == "succeeded"
    with pytest.raises(UnauthenticatedError):
        await pairing.exchange(unused.code, About(), "192.0.2.1")
    async with database.platform() as session:
        keys = list(
            await session.scalars(select(ApiKey).where(ApiKey.connector_id == str(paired.id)))
        )
    assert [key.revoked_at is not None for key in keys] == [True]
    async with database.tenant(tenant.schema) as session:
        states = list(await session.scalars(select(Connector.state)))
        told = await session.scalars(select(Signal).where(Signal.type == "connector.revoked"))
        assert {one.subject_id for one in told} == {str(paired.id), str(waiting.id)}
    assert states == ["revoked", "revoked"]
