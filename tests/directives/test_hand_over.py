"""Drains that follow one another: no gap between them, and workers that are known while they live."""

import asyncio
import time
from typing import Any

from fleetprompt.db.engine import Database
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.types import DirectiveParams
from fleetprompt.directives.workers import known_workers
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.directives.test_runner import ask, nothing, runner, types


async def worker_states(database: Database) -> dict[str, str]:
    return {one.owner: one.state for one in await known_workers(database)}


async def until(database: Database, owner: str, state: str) -> None:
    async with asyncio.timeout(20):
        while (await worker_states(database)).get(owner) != state:
            await asyncio.sleep(0.02)


async def test_a_worker_is_known_from_its_first_look_to_its_end(
    database: Database, settings: Settings
) -> None:
    async with runner(database, settings, types(nothing), owner="here") as one:
        draining = asyncio.create_task(one.drain(linger_seconds=1.0))
        await until(database, "here", "taking")
        await draining
    assert (await worker_states(database))["here"] == "left"


async def test_a_retiring_worker_goes_on_until_its_successor_is_there(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    known, done = types(nothing), dict[str, list[DirectiveOutcome]](old=[], new=[])
    async with (
        runner(database, settings, known, owner="old") as old,
        runner(database, settings, known, owner="new") as new,
    ):
        first = asyncio.create_task(
            old.drain(
                linger_seconds=60,
                most_seconds=0.2,
                hand_over_seconds=60,
                on_done=done["old"].append,
            )
        )
        await until(database, "old", "retiring")
        await ask(database, tenant, known)
        async with asyncio.timeout(20):
            while not done["old"]:
                await asyncio.sleep(0.02)
        assert not first.done(), "without a successor it takes what comes"
        second = asyncio.create_task(
            new.drain(linger_seconds=4, most_seconds=600, on_done=done["new"].append)
        )
        async with asyncio.timeout(20):
            await first
        await ask(database, tenant, known)
        async with asyncio.timeout(20):
            while not done["new"]:
                await asyncio.sleep(0.02)
        await second
    assert [o.state for o in (*done["old"], *done["new"])] == ["succeeded"] * 2


async def test_a_worker_that_gets_no_successor_ends_after_all_and_finishes_what_runs(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    async def work(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
        await asyncio.sleep(2.0)
        return {}

    known = types(work)
    await ask(database, tenant, known)
    began = time.monotonic()
    async with runner(database, settings, known, owner="alone") as one:
        draining = asyncio.create_task(
            one.drain(linger_seconds=60, most_seconds=0.3, hand_over_seconds=0.5)
        )
        await asyncio.sleep(1.2)
        await ask(database, tenant, known)
        outcomes = await draining
    assert [outcome.state for outcome in outcomes] == ["succeeded"], "the second is for others"
    assert time.monotonic() - began < 30
    async with runner(database, settings, known) as one:
        assert len(await one.drain()) == 1
