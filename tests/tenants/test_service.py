"""Creating and deleting tenants, and who may belong to them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import ConflictError, InvalidError, NotFoundError
from fleetprompt.settings import Settings
from fleetprompt.tenants.members import add_member, list_members, remove_member
from fleetprompt.tenants.service import (
    Tenant,
    active_tenants,
    create_tenant,
    delete_tenant,
    get_tenant,
)


async def test_a_slug_is_given_once_whatever_the_concurrency(settings: Settings) -> None:
    results = await asyncio.gather(
        *(create_tenant(settings, slug="only-once", name="One") for _ in range(5)),
        return_exceptions=True,
    )
    made = [r for r in results if isinstance(r, Tenant)]
    refused = [r for r in results if isinstance(r, ConflictError)]
    assert (len(made), len(refused)) == (1, 4)
    with pytest.raises(ConflictError):
        await create_tenant(settings, slug="only-once", name="Two")


async def test_an_interrupted_creation_is_finished_by_asking_again(
    settings: Settings, owner: Database, tenant: Tenant
) -> None:
    async with owner.platform() as session:
        await session.execute(
            text("UPDATE fleetprompt.organizations SET state = 'creating' WHERE id = :id"),
            {"id": tenant.id},
        )
    assert (await create_tenant(settings, slug=tenant.slug, name="again")).id == tenant.id


async def test_deleting_needs_the_slug_typed_and_leaves_nothing(
    settings: Settings, owner: Database, database: Database, tenant: Tenant
) -> None:
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text("INSERT INTO fleetprompt.stale_partitions (day) VALUES ('2026-01-06')")
        )
    lake = settings.lake / "signals" / f"tenant={tenant.slug}" / "day=2026-01-06"
    assert isinstance(lake, Path)
    lake.mkdir(parents=True)
    (lake / "part.parquet").write_bytes(b"x")

    for typed in ("", tenant.slug.upper(), "yes"):
        with pytest.raises(InvalidError):
            await delete_tenant(settings, slug=tenant.slug, typed=typed)
    await delete_tenant(settings, slug=tenant.slug, typed=tenant.slug)

    assert not lake.parent.exists()
    async with owner.platform() as session:
        for query in (
            "SELECT count(*) FROM pg_namespace WHERE nspname = :s",
            "SELECT count(*) FROM pg_roles WHERE rolname = :s",
            "SELECT count(*) FROM fleetprompt.organizations WHERE schema_name = :s",
            "SELECT count(*) FROM fleetprompt.stale_partitions WHERE tenant_schema = :s",
        ):
            assert await session.scalar(text(query), {"s": tenant.schema}) == 0, query
        with pytest.raises(NotFoundError):
            await get_tenant(session, tenant.slug)
    with pytest.raises(NotFoundError):
        await delete_tenant(settings, slug=tenant.slug, typed=tenant.slug)
    # The slug is free again.
    assert (await create_tenant(settings, slug=tenant.slug, name="New")).id != tenant.id


async def test_tenants_in_the_making_are_not_worked_for(
    database: Database, owner: Database, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    ready, half = await new_tenant(), await new_tenant()
    async with owner.platform() as session:
        await session.execute(
            text("UPDATE fleetprompt.organizations SET state = 'creating' WHERE id = :id"),
            {"id": half.id},
        )
    async with database.platform() as session:
        slugs = {tenant.slug for tenant in await active_tenants(session)}
    assert ready.slug in slugs
    assert half.slug not in slugs


async def test_members_come_change_and_go_but_an_owner_stays(
    database: Database, tenant: Tenant
) -> None:
    async with database.platform() as session:
        first = await add_member(session, tenant, email="Ops@Example.org", role="owner")
        same = await add_member(session, tenant, email="ops@example.org", role="owner")
        assert first.user_id == same.user_id
        second = await add_member(session, tenant, email="dev@example.org", role="viewer")
    with pytest.raises(ConflictError):
        async with database.platform() as session:
            await remove_member(session, tenant, first.user_id)
    with pytest.raises(ConflictError):
        async with database.platform() as session:
            await add_member(session, tenant, email="ops@example.org", role="member")
    async with database.platform() as session:
        await add_member(session, tenant, email="dev@example.org", role="owner")
        await remove_member(session, tenant, first.user_id)
    async with database.platform() as session:
        assert [m.user_id for m in await list_members(session, tenant)] == [second.user_id]


@pytest.mark.parametrize(
    "email", ["", "x", "a@b\r\nBcc: c@d", "a b@c.d", "<a@b.c>", "a@b,c@d", "@b.c"]
)
async def test_an_address_that_could_break_a_header_is_refused(
    database: Database, tenant: Tenant, email: str
) -> None:
    with pytest.raises(InvalidError):
        async with database.platform() as session:
            await add_member(session, tenant, email=email, role="viewer")
