"""Which connection a transaction gets."""

from collections.abc import Awaitable, Callable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.tenants.service import Tenant


async def backend(session: AsyncSession) -> int:
    """The process that serves the transaction."""
    return int((await session.execute(text("SELECT pg_backend_pid()"))).scalar_one())


async def test_a_tenant_comes_back_to_the_backend_that_served_it_last(
    database: Database, tenant: Tenant, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    other = await new_tenant()
    async with database.tenant(other.schema) as theirs, database.tenant(tenant.schema) as own:
        known = {tenant: await backend(own), other: await backend(theirs)}
    assert len(set(known.values())) == 2
    for one in (tenant, other, other, tenant, other, tenant):
        async with database.tenant(one.schema) as session:
            assert await backend(session) == known[one]
    # A transaction of no tenant takes what came back last, and changes nothing about who knows whom.
    async with database.platform() as session:
        assert await backend(session) == known[tenant]
    async with database.tenant(other.schema) as session:
        assert await backend(session) == known[other]


async def test_a_backend_that_is_busy_is_not_waited_for(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant.schema) as first, database.tenant(tenant.schema) as second:
        assert await backend(first) != await backend(second)
