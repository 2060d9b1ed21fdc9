"""``python -m tests.chaos.drain_kills``: kill the workers of directives under load, then count.

Several workers drain several tenants' queues while directives keep being asked for. They are killed
with SIGKILL at random moments and replaced at once, stopped until after their leases, cut off from
their notifications, and PostgreSQL is killed too. At the end every directive that was acknowledged has
ended, by the attempt that held its lease, and effects outside with an idempotency key took place once.
Exit code 1 and the first differences otherwise.
"""

import argparse
import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import psycopg

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import FleetPromptError
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.chaos.drain_check import check, names_of_lost_attempts
from tests.chaos.drain_worker import LEASE_SECONDS, TYPES
from tests.chaos.effects import Effects, running_effects
from tests.chaos.ground import platform
from tests.chaos.workforce import Workforce

TENANTS = 4
WORKERS = 4
MOST_OPEN = 200  # directives that have not ended; more are asked for when there are fewer
_SECONDS = {
    "chaos.quick": (0.0, 0.0),
    "chaos.slow": (0.2, 1.0),
    # Longer than a lease at the worst.
    "chaos.busy": (0.1, LEASE_SECONDS + 0.5),
    "chaos.retry": (0.0, 0.1),
    "chaos.effect": (0.0, 0.2),
    "chaos.fragile": (0.2, 0.6),
}
_WEIGHTS = {"chaos.busy": 0.1, "chaos.quick": 2.0, "chaos.effect": 2.0}
_SOMEBODY = Actor("chaos", "platform")
Progress = Callable[[int, int, int], None]


@dataclass
class Outcome:
    """What was done to the workers, and what the tables held at the end."""

    kills: int = 0
    stops: int = 0
    postgres_kills: int = 0
    listeners_cut: int = 0
    asked: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    effects: int = 0
    effects_asked_again: int = 0
    answers_withheld: int = 0
    ended_by_themselves: dict[str, str] = field(default_factory=dict)
    lost_by_the_unharmed: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    seconds_to_settle: float = 0.0


class Chaos:
    """One run: the load, the harm, and the wait for the end."""

    def __init__(
        self,
        settings: Settings,
        server: EmbeddedPostgres,
        effects: Effects,
        seed: int,
        folder: Path,
    ) -> None:
        self.settings, self.server, self.effects = settings, server, effects
        self.chance = random.Random(seed)
        self.outcome = Outcome()
        self.asked: dict[str, tuple[Tenant, UUID]] = {}
        self.tenants: list[Tenant] = []
        self.workers = Workforce(settings, effects.url, folder, WORKERS)
        self._stopped: set[asyncio.Task[None]] = set()

    async def run(self, kills: int, postgres_kills: int, progress: Progress) -> None:
        """Harm until ``kills`` workers were killed, then let the rest be done."""
        for number in range(TENANTS):
            slug = f"chaos-{number}"
            self.tenants.append(await create_tenant(self.settings, slug=slug, name=slug))
        async with Database.application(self.settings) as database:
            await asyncio.to_thread(self.workers.start)
            enough = asyncio.Event()
            load = asyncio.create_task(self._keep_asking(database, enough))
            try:
                await self._harm(kills, postgres_kills, progress)
                enough.set()
                await load
                await self._wait_for_the_end(database)
            finally:
                load.cancel()
                for task in self._stopped:
                    task.cancel()
                await asyncio.to_thread(self.workers.close)
        self._count()

    async def _harm(self, kills: int, postgres_kills: int, progress: Progress) -> None:
        crashes = set(self.chance.sample(range(1, kills + 1), postgres_kills))
        for done in range(1, kills + 1):
            await asyncio.sleep(self.chance.uniform(0.05, 0.55))
            await asyncio.to_thread(self.workers.kill, self.chance.randrange(WORKERS))
            self.outcome.kills += 1
            if done in crashes:
                await asyncio.to_thread(self.server.kill)
                await asyncio.to_thread(self.server.start)
                self.outcome.postgres_kills += 1
                # Whoever lived then was cut off too, and may have lost what it held.
                self.workers.harmed.update(self.workers.names)
            elif done % 11 == 0:
                self._stop_for_a_while(self.chance.randrange(WORKERS))
            elif done % 7 == 0:
                await asyncio.to_thread(self._cut_a_listener)
            await asyncio.to_thread(self.workers.replace_ended)
            progress(done, kills, len(self.asked))

    def _stop_for_a_while(self, place: int) -> None:
        process = self.workers.stop(place)
        self.outcome.stops += 1

        async def later() -> None:
            try:
                await asyncio.sleep(LEASE_SECONDS + self.chance.uniform(0.2, 2.0))
            finally:
                self.workers.go_on(process)

        task = asyncio.create_task(later())
        self._stopped.add(task)
        task.add_done_callback(self._stopped.discard)

    def _cut_a_listener(self) -> None:
        """T11: the connection that hears notifications is gone."""
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(self.server.owner_url, autocommit=True) as connection,
        ):
            cut = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN %' ORDER BY random() LIMIT 1"
            ).fetchall()
            self.outcome.listeners_cut += len(cut)

    async def _keep_asking(self, database: Database, enough: asyncio.Event) -> None:
        number = 0
        weights = [_WEIGHTS.get(kind, 1.0) for kind in _SECONDS]
        while not enough.is_set():
            if await self._open(database) >= MOST_OPEN:
                await asyncio.sleep(0.1)
                continue
            for _ in range(10):
                (kind,) = self.chance.choices([*_SECONDS], weights)
                await self._ask(database, f"chaos:{number}", kind)
                number += 1

    async def _ask(self, database: Database, key: str, kind: str) -> None:
        """Repeat it under its key until it is acknowledged."""
        tenant = self.chance.choice(self.tenants)
        params = {"seconds": self.chance.uniform(*_SECONDS[kind])}
        while True:
            with contextlib.suppress(FleetPromptError):
                async with database.tenant(tenant.schema) as session:
                    directive, _ = await request_directive(
                        session, tenant, kind, params, idempotency_key=key, actor=_SOMEBODY,
                        priority=self.chance.randrange(2), correlation_id=key, types=TYPES,
                    )  # fmt: skip
                self.asked[key] = (tenant, directive.id)
                break
            await asyncio.sleep(0.1)
        with contextlib.suppress(FleetPromptError):
            await notify_directives(database)

    async def _open(self, database: Database) -> int:
        while True:
            with contextlib.suppress(FleetPromptError):
                async with database.platform() as session:
                    connection = await session.connection()
                    found = await connection.exec_driver_sql(
                        "SELECT count(*) FROM fleetprompt.directive_queue"
                    )
                    return int(found.scalar_one())
            await asyncio.sleep(0.1)

    async def _wait_for_the_end(self, database: Database) -> None:
        begun = time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(120):
                while await self._open(database):
                    await asyncio.to_thread(self.workers.replace_ended)
                    await asyncio.sleep(0.1)
        self.outcome.seconds_to_settle = round(time.monotonic() - begun, 1)

    def _count(self) -> None:
        outcome, url = self.outcome, self.server.owner_url
        counts: Counter[str] = Counter()
        outcome.asked = len(self.asked)
        outcome.differences += check(url, self.asked, self.effects.applied, counts)
        outcome.counts = dict(counts)
        outcome.effects = len(self.effects.applied)
        outcome.effects_asked_again = self.effects.asked.total() - outcome.effects
        outcome.answers_withheld = self.effects.unanswered
        harmed = self.workers.harmed
        for name, words in self.workers.ended.items():
            # One that meets a database that is away may end; Dagster starts another.
            target = outcome.ended_by_themselves
            target[name] = words
            if name not in harmed:
                outcome.differences.append(f"{name} ended by itself: {words}")
        lost = names_of_lost_attempts(url, [tenant.schema for tenant in self.tenants])
        outcome.lost_by_the_unharmed = {
            name: number for name, number in lost.items() if name not in harmed
        }


async def run(
    kills: int,
    *,
    postgres_kills: int = 0,
    seed: int = 0,
    progress: Progress = lambda done, total, asked: None,
) -> Outcome:
    """Kill that often; ``progress(kills done, in all, directives asked for)`` follows each kill."""
    with (
        tempfile.TemporaryDirectory() as folder,
        platform() as (settings, server),
        running_effects(seed) as effects,
    ):
        chaos = Chaos(settings, server, effects, seed, Path(folder))
        await chaos.run(kills, postgres_kills, progress)
        return chaos.outcome


def main() -> None:
    """Read the arguments, run, print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.drain_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="kills of workers")
    parser.add_argument("--postgres", type=int, default=5, help="kills of PostgreSQL among them")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.monotonic()

    def progress(done: int, total: int, asked: int) -> None:
        if done % 25 == 0 or done == total:
            seconds = time.monotonic() - begun
            print(f"{done} of {total} kills, {asked} asked for, {seconds:.0f} s", file=sys.stderr)

    outcome = asyncio.run(
        run(
            arguments.kills,
            postgres_kills=arguments.postgres,
            seed=arguments.seed,
            progress=progress,
        )
    )
    summary = {
        **vars(outcome),
        "differences": outcome.differences[:20],
        "number_of_differences": len(outcome.differences),
        "seconds": round(time.monotonic() - begun),
    }
    print(json.dumps(summary, indent=1))
    sys.exit(1 if outcome.differences else 0)


if __name__ == "__main__":
    main()
