"""How many directives are under way at once, per tenant and type, over all workers; and who comes first."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.due import reserve
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import AnyDirectiveType, DirectiveParams, DirectiveType
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.directives.test_runner import ask, nothing, runner, types

NewTenant = Callable[[], Awaitable[Tenant]]


class Gauge:
    """Counts handlers at work by tenant and in all, and keeps the highest."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.highest: Counter[str] = Counter()

    async def work(self, context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        for name in (context.tenant.slug, "all"):
            self.now[name] += 1
            self.highest[name] = max(self.highest[name], self.now[name])
        await asyncio.sleep(0.05)
        for name in (context.tenant.slug, "all"):
            self.now[name] -= 1
        return {}


async def pile_up(database: Database, owner: Database, tenant: Tenant, number: int) -> None:
    """Make many directives pending at once, as the application's own statement would one by one."""
    async with owner.engine.begin() as connection:
        await connection.execute(text(f'SET LOCAL search_path = "{tenant.schema}"'))
        await connection.execute(
            text(
                "INSERT INTO directives (id, type, idempotency_key, state, actor, changed_by)"
                " SELECT gen_random_uuid(), 'test.work', 'pile:' || n, 'pending', 'user:a', 'user:a'"
                " FROM generate_series(1, :number) n"
            ),
            {"number": number},
        )


async def test_a_type_has_no_more_under_way_than_its_concurrency_over_two_workers(
    database: Database, settings: Settings, tenant: Tenant, new_tenant: NewTenant
) -> None:
    gauge = Gauge()
    known = types(gauge.work, concurrency=3)
    for one in (tenant, await new_tenant()):
        for _ in range(10):
            await ask(database, one, known)
    async with (
        runner(database, settings, known) as a,
        runner(database, settings, known, owner="worker-2") as b,
    ):
        done = await asyncio.gather(a.drain(), b.drain())
    assert sum(len(outcomes) for outcomes in done) == 20
    assert gauge.highest["all"] == 3


async def test_a_tenant_has_no_more_under_way_than_allowed_over_two_workers(
    database: Database, settings: Settings, tenant: Tenant, new_tenant: NewTenant
) -> None:
    gauge = Gauge()
    known, other = types(gauge.work), await new_tenant()
    narrow = settings.model_copy(update={"directive_tenant_concurrency": 2})
    for one in (tenant, other):
        for _ in range(8):
            await ask(database, one, known)
    async with (
        runner(database, narrow, known) as a,
        runner(database, narrow, known, owner="worker-2") as b,
    ):
        done = await asyncio.gather(a.drain(), b.drain())
    assert sum(len(outcomes) for outcomes in done) == 16
    assert (gauge.highest[tenant.slug], gauge.highest[other.slug]) == (2, 2)


async def test_many_reservations_at_once_never_exceed_a_limit_and_never_overlap(
    database: Database, tenant: Tenant, owner: Database
) -> None:
    await pile_up(database, owner, tenant, 200)
    known = types(nothing, concurrency=37)
    found = await asyncio.gather(
        *(reserve(database, 10, most_of_tenant=100, types=known) for _ in range(16))
    )
    taken = [one for each in found for one in each.get(tenant.schema, [])]
    assert len(taken) == len(set(taken)) == 37


async def test_a_reservation_whose_worker_died_is_given_out_again(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    known = types(nothing)
    directive_id = await ask(database, tenant, known)
    assert await reserve(database, 5, most_of_tenant=5, types=known) == {
        tenant.schema: [directive_id]
    }
    assert await reserve(database, 5, most_of_tenant=5, types=known) == {}
    async with database.platform() as session:
        await session.execute(
            text(
                "UPDATE fleetprompt.directive_queue SET due_at = due_at - interval '10 seconds'"
                " WHERE directive_id = :id"
            ),
            {"id": directive_id},
        )
    async with runner(database, settings, known) as one:
        assert [outcome.state for outcome in await one.drain()] == ["succeeded"]


async def test_a_saturated_type_does_not_hold_up_the_tenants_other_types(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    known: dict[str, AnyDirectiveType] = {
        **types(nothing, concurrency=1),
        "test.other": DirectiveType("test.other", "Works.", DirectiveParams, nothing),
    }
    for _ in range(40):
        await ask(database, tenant, known, priority=5)
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO directives (id, type, idempotency_key, state, actor, changed_by)"
                " VALUES (gen_random_uuid(), 'test.other', 'o', 'pending', 'user:a', 'user:a')"
            )
        )
    found = await reserve(database, 10, most_of_tenant=16, types=known)
    assert len(found[tenant.schema]) == 2


async def test_ten_thousand_pending_of_one_tenant_do_not_delay_anothers_by_more_than_a_second(
    database: Database,
    settings: Settings,
    tenant: Tenant,
    new_tenant: NewTenant,
    owner: Database,
) -> None:
    """The bar of fairness: measured from the request to the handler, the long queue being worked off."""
    began: dict[str, float] = {}

    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        began[str(context.directive.id)] = time.monotonic()
        await asyncio.sleep(0.02)
        return {}

    known, other = types(work), await new_tenant()
    await pile_up(database, owner, tenant, 10_000)
    waits: list[float] = []
    async with DirectiveRunner(database, settings, owner="w", types=known) as one:
        draining = asyncio.create_task(one.drain(most_seconds=12))
        await asyncio.sleep(1.0)
        for _ in range(8):
            asked = time.monotonic()
            directive_id = str(await ask(database, other, known))
            while directive_id not in began:
                await asyncio.sleep(0.01)
            waits.append(began[directive_id] - asked)
        assert not draining.done(), "the long queue is still being worked off"
        await draining
    assert sorted(waits)[len(waits) // 2] < 1.0
