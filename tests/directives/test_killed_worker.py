"""Workers that are killed or stopped in the middle of an attempt, as processes of their own."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.directives import service
from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.models import Directive
from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import DirectiveParams, DirectiveType
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant

pytestmark = pytest.mark.slow


async def at_once(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
    return {"by": "this process"}


TYPES = {"test.work": DirectiveType("test.work", "Works.", DirectiveParams, at_once)}


@asynccontextmanager
async def other_worker(
    settings: Settings, repository: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The worker process, at work on its attempt."""
    assert settings.database_url is not None
    assert settings.master_key is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.directives.worker",
        cwd=repository,
        env={
            **os.environ,
            "FLEETPROMPT_DATABASE_URL": settings.database_url.get_secret_value(),
            "FLEETPROMPT_MASTER_KEY": settings.master_key.get_secret_value(),
            "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
        },
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"began 1\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def asked(database: Database, tenant: Tenant) -> Directive:
    async with database.tenant(tenant.schema) as session:
        directive, _ = await service.request_directive(
            session, tenant, "test.work", {}, idempotency_key="k", actor=PLATFORM, types=TYPES
        )
        return directive


async def take_over(database: Database, settings: Settings) -> list[DirectiveOutcome]:
    """What a second worker does within two lease times and a poll."""
    async with DirectiveRunner(
        database, settings, owner="this", types=TYPES, poll_seconds=0.1
    ) as runner:
        return await runner.drain(linger_seconds=2.5)


async def end_of(database: Database, tenant: Tenant, directive: Directive) -> tuple[str, int, Any]:
    async with database.tenant(tenant.schema) as session:
        found = await service.get(session, directive.id)
        return found.state, found.attempt, found.result


async def test_the_work_of_a_killed_worker_is_done_by_another_within_two_leases(
    database: Database, settings: Settings, tenant: Tenant, repository: Path
) -> None:
    directive = await asked(database, tenant)
    async with other_worker(settings, repository) as process:
        process.kill()
        (outcome,) = await take_over(database, settings)
    assert (outcome.state, outcome.attempt) == ("succeeded", 2)
    assert await end_of(database, tenant, directive) == (
        "succeeded", 2, {"by": "this process"},
    )  # fmt: skip


async def test_a_worker_that_wakes_after_its_lease_cannot_end_the_next_attempt(
    database: Database, settings: Settings, tenant: Tenant, repository: Path
) -> None:
    """Trap T12, with SIGSTOP and SIGCONT."""
    directive = await asked(database, tenant)
    async with other_worker(settings, repository) as process:
        process.send_signal(signal.SIGSTOP)
        (outcome,) = await take_over(database, settings)
        assert (outcome.state, outcome.attempt) == ("succeeded", 2)
        process.send_signal(signal.SIGCONT)
        said, _ = await asyncio.wait_for(process.communicate(b"go on\n"), 30)
    assert said == b"lost\n"
    assert await end_of(database, tenant, directive) == (
        "succeeded", 2, {"by": "this process"},
    )  # fmt: skip


async def test_a_worker_that_is_alive_keeps_its_work_however_long_it_takes(
    database: Database, settings: Settings, tenant: Tenant, repository: Path
) -> None:
    """Trap T13."""
    directive = await asked(database, tenant)
    async with other_worker(settings, repository) as process:
        assert await take_over(database, settings) == []
        said, _ = await asyncio.wait_for(process.communicate(b"go on\n"), 30)
    assert said == b"succeeded\n"
    assert await end_of(database, tenant, directive) == (
        "succeeded", 1, {"by": "the other process"},
    )  # fmt: skip
