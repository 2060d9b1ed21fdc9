"""What programs that kill workers at random have in common: workers, time, what they count, command line."""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import text

from fleetprompt.db.urls import application_url
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.packages.installed import Platform

PATIENCE_SECONDS = 60.0
"""How long an absence must last; the world's own delays are waited for, and then this passes at once."""
WORLD_SECONDS = 0.2
"""Longer than anything that the stand-ins delay."""

Worker = dict[str, float] | dict[str, int]
"""When a worker is killed: ``kill_at`` a suspension, ``kill_after`` seconds, or not at all."""


@dataclass
class KillCount:
    """How often was killed, and what was wrong at the end."""

    kills: int = 0
    differences: list[str] = field(default_factory=list)


class Forks:
    """The process that forks workers; ``further`` is added to its environment."""

    def __init__(self, settings: Settings, owner_url: str, **further: str) -> None:
        key = settings.master_key
        environment = {
            **os.environ,
            "FLEETPROMPT_DATABASE_URL": owner_url,
            "FLEETPROMPT_APP_DATABASE_URL": application_url(settings),
            "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
            "FLEETPROMPT_MASTER_KEY": key.get_secret_value() if key else "",
            "FLEETPROMPT_MASTER_KEY_SOURCE": "env",
            "FLEETPROMPT_ALLOWED_PRIVATE_NETWORKS": '["127.0.0.0/8"]',
            "FLEETPROMPT_ALLOW_PLAIN_HTTP": "true",
            "FLEETPROMPT_ABSENCE_SECONDS": str(PATIENCE_SECONDS),
            **further,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.posting_worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def work(self, tenant: Tenant, killed: Worker) -> tuple[int, int]:
        """One worker's life: its exit code, negative for a signal, and the protocol's suspensions."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "tenant": [str(tenant.id), tenant.slug, tenant.schema],
            **killed,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        return ended["ended"], ended["suspensions"]

    def close(self) -> None:
        """End the process, after the worker that it may still have."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()


async def patience_passes(platform: Platform) -> None:
    """Let the world finish what it delays, then let the platform's patience run out."""
    await asyncio.sleep(WORLD_SECONDS)
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE outbound_messages SET settled_at = settled_at - make_interval(secs => :long),"
                " absent_at = absent_at - make_interval(secs => :long)"
                " WHERE state = 'unknown'"
            ),
            {"long": PATIENCE_SECONDS},
        )


def random_deaths(
    chance: random.Random, most: int, suspensions: int, seconds: float
) -> list[Worker]:
    """Up to ``most`` workers: killed at one of so many suspensions, or by the clock within ``seconds``."""
    return [
        {"kill_at": chance.randint(1, max(1, suspensions))}
        if chance.random() < 0.7
        else {"kill_after": chance.uniform(0.0, seconds)}
        for _ in range(chance.randint(1, most))
    ]


def was_killed(ended: int | None) -> bool:
    """Whether a worker of this exit code was killed."""
    return ended == -signal.SIGKILL


Run = Callable[..., Coroutine[Any, Any, Mapping[str, KillCount]]]
"""Takes ``kills``, and by name ``every``, ``lanes``, ``seed`` and ``progress``; an outcome for each way."""


def main(program: str, description: str | None, run: Run) -> None:
    """Read the arguments, run, print what was found as JSON; exit code 1 for any difference."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("--kills", type=int, default=1000, help="kills in all, at least")
    parser.add_argument("--every", type=int, default=1, help="of the suspensions, each n-th")
    parser.add_argument("--lanes", type=int, default=2, help="digests of each way at once")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.monotonic()
    told, shown = 0, set[str]()

    def progress(outcomes: Sequence[KillCount]) -> None:
        nonlocal told
        done = sum(one.kills for one in outcomes)
        differences = [difference for one in outcomes for difference in one.differences]
        if done >= told + 25 or len(differences) > len(shown):
            told = done
            seconds = time.monotonic() - begun
            line = f"{done} of {arguments.kills} kills, {len(differences)} differences"
            print(f"{line}, {seconds:.0f} s", file=sys.stderr, flush=True)
            for difference in differences:
                if difference not in shown:
                    shown.add(difference)
                    print(difference, file=sys.stderr, flush=True)

    found = asyncio.run(
        run(
            arguments.kills,
            every=arguments.every,
            lanes=arguments.lanes,
            seed=arguments.seed,
            progress=progress,
        )
    )
    summary = {way: asdict(outcome) for way, outcome in found.items()}
    print(json.dumps(summary | {"seconds": round(time.monotonic() - begun)}, indent=1))
    sys.exit(1 if any(outcome.differences for outcome in found.values()) else 0)
