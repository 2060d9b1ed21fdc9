"""The two that are compared: how each is asked for work, and its worker in a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import Protocol

from procrastinate import App
from procrastinate.types import JSONDict

from bench.directives.tasks import prepare, procrastinate, procrastinate_url
from bench.directives.types import NOTHING, TELL, TYPES
from bench.platform import Bench
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.wake import notify_directives
from fleetprompt.ids import new_id
from fleetprompt.tenants.service import Tenant, create_tenant

TENANTS = 4
_IN_ONE_TRANSACTION = 250


@dataclass(frozen=True)
class Worker:
    """A worker process."""

    process: asyncio.subprocess.Process

    async def order(self, what: str, concurrency: int) -> None:
        """``drain`` or ``stay``; see ``bench.directives.worker``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {concurrency}\n".encode())
        await self.process.stdin.drain()

    async def answer(self) -> list[str]:
        """The words of its next line; RuntimeError if it has ended."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError("the worker has ended; its log is above")
        return line.decode().split()

    async def drain(self, concurrency: int) -> tuple[float, float]:
        """Have all work done that is there; seconds that it took, and those of the worker's CPU."""
        await self.order("drain", concurrency)
        _, took, used = await self.answer()
        return float(took), float(used)


class Contender(Protocol):
    """One that does work asked for through a table of PostgreSQL."""

    name: str
    worker: Worker

    async def ask(self, number: int) -> None:
        """Ask for one piece of work that tells its start, and have it known."""

    async def fill(self, count: int) -> None:
        """Ask for so many that do nothing."""


@dataclass
class Ours:
    """Directives of several tenants."""

    database: Database
    tenants: Sequence[Tenant]
    worker: Worker
    name: str = field(default="directives with full audit", init=False)

    async def ask(self, number: int) -> None:
        """As the platform does it: one transaction, then the notice."""
        tenant = self.tenants[number % len(self.tenants)]
        await self._ask(tenant, TELL, [number])
        await notify_directives(self.database)

    async def fill(self, count: int) -> None:
        """Evenly among the tenants."""
        for turn, tenant in enumerate(self.tenants):
            numbers = range(turn, count, len(self.tenants))
            for start in range(0, len(numbers), _IN_ONE_TRANSACTION):
                await self._ask(tenant, NOTHING, numbers[start : start + _IN_ONE_TRANSACTION])

    async def _ask(self, tenant: Tenant, kind: str, numbers: Sequence[int]) -> None:
        async with self.database.tenant(tenant.schema) as session:
            for number in numbers:
                key = str(new_id())
                await request_directive(
                    session, tenant, kind, {"number": number}, idempotency_key=key,
                    actor=PLATFORM, correlation_id=f"bench:{key}", types=TYPES,
                )  # fmt: skip


@dataclass
class Procrastinate:
    """Tasks of Procrastinate."""

    app: App
    worker: Worker
    name: str = field(default="Procrastinate's no-op tasks", init=False)

    async def ask(self, number: int) -> None:
        """One transaction; a trigger sends the notice."""
        await self.app.configure_task(TELL).defer_async(number=number)

    async def fill(self, count: int) -> None:
        """All in one."""
        jobs: list[JSONDict] = [{"number": number} for number in range(count)]
        await self.app.configure_task(NOTHING).batch_defer_async(*jobs)

    async def unfinished(self) -> int:
        """How many have not succeeded."""
        found = await self.app.connector.execute_query_one_async(
            "SELECT count(*) AS number FROM procrastinate_jobs WHERE status <> 'succeeded'"
        )
        return int(found["number"])


@asynccontextmanager
async def contenders(bench: Bench) -> AsyncIterator[tuple[Ours, Procrastinate]]:
    """Both, each with its worker, on one server."""
    tenants = [bench.tenant]
    for number in range(2, TENANTS + 1):
        slug = f"acme{number}"
        tenants.append(await create_tenant(bench.settings, slug=slug, name=f"Acme {number}"))
    await prepare(bench.server.owner_url)
    url = procrastinate_url(bench.server.owner_url)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database.application(bench.settings))
        app = await stack.enter_async_context(procrastinate(url).open_async())
        environment = {
            **bench.environment(),
            "BENCH_PROCRASTINATE_URL": url,
            "FLEETPROMPT_LOG_LEVEL": "INFO",
        }
        yield (
            Ours(database, tenants, await stack.enter_async_context(_working("ours", environment))),
            Procrastinate(
                app, await stack.enter_async_context(_working("procrastinate", environment))
            ),
        )


@asynccontextmanager
async def _working(side: str, environment: dict[str, str]) -> AsyncIterator[Worker]:
    """A worker process, its log written to a file as in a deployment; ended with the block."""
    with TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.directives.worker", side),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        try:
            yield Worker(process)
        except RuntimeError:
            log.seek(0)
            sys.stderr.write(log.read().decode()[-4000:])
            raise
        finally:
            process.kill()
            await process.wait()
