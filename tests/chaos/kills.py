"""``python -m tests.chaos.kills``: SIGKILL the API and PostgreSQL under load, then count.

Each client sends signals one after the other and repeats one, under its dedupe key, until it is
acknowledged. At the end every acknowledged signal must be stored exactly once under the id that was
acknowledged, and nothing else may be there. Exit code 1 and the first differences otherwise.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import httpx
import psycopg

from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.db.urls import application_url
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.chaos.ground import platform
from tests.ports import free_port


@dataclass
class Outcome:
    """What the clients were told and what the database holds."""

    api_kills: int = 0
    postgres_kills: int = 0
    acknowledged: int = 0
    repeated: int = 0
    rows: int = 0
    differences: list[str] = field(default_factory=list)


class ApiProcess:
    """The API as its own process, killed and started again."""

    def __init__(self, settings: Settings, owner_url: str) -> None:
        self.port = free_port()
        key = settings.master_key
        self._environment = {
            **os.environ,
            "FLEETPROMPT_DATABASE_URL": owner_url,
            "FLEETPROMPT_APP_DATABASE_URL": application_url(settings),
            "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
            "FLEETPROMPT_MASTER_KEY": key.get_secret_value() if key else "",
            "FLEETPROMPT_LOG_LEVEL": "ERROR",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it may take a second or two until it answers."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "fleetprompt_api.app:app", "--no-access-log"),
                *("--port", str(self.port), "--log-level", "critical"),
            ],
            env=self._environment,
            stderr=subprocess.DEVNULL,
        )

    async def ready(self) -> None:
        """Wait until it answers."""
        async with httpx.AsyncClient() as client, asyncio.timeout(60):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    await client.get(f"http://127.0.0.1:{self.port}/health/live")
                    return
                await asyncio.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to it and wait for its end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)


async def _client(
    number: int,
    port: int,
    token: str,
    stop: asyncio.Event,
    acknowledged: dict[str, str],
    outcome: Outcome,
) -> None:
    sequence = 0
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
    ) as client:
        while not stop.is_set():
            key = f"kill:{number}:{sequence}"
            sequence += 1
            body = {
                "type": "chaos.signal.sent",
                "source": "chaos",
                "occurred_at": "2026-01-06T09:00:00Z",
                "dedupe_key": key,
                "data": {"sequence": sequence},
            }
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.post("/api/v1/signals", json=body)
                    if answer.is_success:
                        acknowledged[key] = answer.json()["id"]
                        break
                    if answer.status_code != 503:
                        outcome.differences.append(f"{key}: answered {answer.status_code}")
                        return
                outcome.repeated += 1
                await asyncio.sleep(0.02)


async def _tenant(settings: Settings) -> tuple[Tenant, str]:
    tenant = await create_tenant(settings, slug="chaos", name="Chaos")
    async with Database.application(settings) as database, database.platform() as session:
        request = KeyRequest(kind="user", name="chaos", role="owner")
        return tenant, (await issue_key(session, settings, tenant, request))[1]


async def run(
    api_kills: int,
    postgres_kills: int,
    *,
    clients: int = 16,
    seed: int = 0,
    progress: Callable[[int, int, int], None] = lambda done, total, acknowledged: None,
) -> Outcome:
    """Kill that often, in random order and at random moments; returns what was found.

    ``progress(kills done, kills in all, signals acknowledged)`` is called after each kill.
    """
    chance = random.Random(seed)
    outcome = Outcome()
    acknowledged: dict[str, str] = {}
    victims = ["api"] * api_kills + ["postgres"] * postgres_kills
    chance.shuffle(victims)
    with platform() as (settings, server):
        tenant, token = await _tenant(settings)
        api = ApiProcess(settings, server.owner_url)
        api.start()
        try:
            await api.ready()
            stop = asyncio.Event()
            load = [
                asyncio.create_task(_client(n, api.port, token, stop, acknowledged, outcome))
                for n in range(clients)
            ]
            for done, victim in enumerate(victims, 1):
                await asyncio.sleep(chance.uniform(0.02, 0.5))
                before = len(acknowledged)
                if victim == "api":
                    api.kill()
                    outcome.api_kills += 1
                    api.start()
                else:
                    await asyncio.to_thread(server.kill)
                    outcome.postgres_kills += 1
                    await asyncio.to_thread(server.start)
                await api.ready()
                await _something_acknowledged(acknowledged, before, load)
                progress(done, len(victims), len(acknowledged))
            stop.set()
            await asyncio.gather(*load)
        finally:
            api.kill(signal.SIGTERM)
        outcome.acknowledged = len(acknowledged)
        _count(server.owner_url, tenant, acknowledged, outcome)
    return outcome


async def _something_acknowledged(
    acknowledged: dict[str, str], before: int, load: list[asyncio.Task[None]]
) -> None:
    """Wait until something more was acknowledged, so that each kill meets a working system."""
    async with asyncio.timeout(60):
        while len(acknowledged) <= before and not all(task.done() for task in load):
            await asyncio.sleep(0.01)


def _count(url: str, tenant: Tenant, acknowledged: dict[str, str], outcome: Outcome) -> None:
    schema = quote_identifier(tenant.schema)
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            f"SELECT dedupe_key, id::text FROM {schema}.signals WHERE source = 'chaos'"
        ).fetchall()
        keys = connection.execute(f"SELECT count(*) FROM {schema}.signal_keys").fetchone()
    outcome.rows = len(rows)
    stored: dict[str, str] = {}
    for key, id_ in rows:
        if key in stored:
            outcome.differences.append(f"{key} is stored twice")
        stored[key] = id_
    for key, id_ in acknowledged.items():
        if stored.get(key) != id_:
            outcome.differences.append(f"{key}: acknowledged {id_}, stored {stored.get(key)}")
    for key in stored.keys() - acknowledged.keys():
        outcome.differences.append(f"{key} is stored and was never acknowledged to anybody")
    if keys is None or keys[0] != len(rows):
        outcome.differences.append(f"{keys} keys for {len(rows)} signals")


def main() -> None:
    """Read the arguments, run, print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.kills", description=__doc__)
    parser.add_argument("--api", type=int, default=100, help="kills of the API")
    parser.add_argument("--postgres", type=int, default=20, help="kills of PostgreSQL")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begun = time.monotonic()

    def progress(done: int, total: int, acknowledged: int) -> None:
        if done % 10 == 0 or done == total:
            print(f"{done} of {total} kills, {acknowledged} acknowledged", file=sys.stderr)

    outcome = asyncio.run(
        run(arguments.api, arguments.postgres, seed=arguments.seed, progress=progress)
    )
    print(
        json.dumps(
            {
                **asdict(outcome),
                "differences": outcome.differences[:20],
                "seconds": round(time.monotonic() - begun),
            }
        )
    )
    sys.exit(1 if outcome.differences else 0)


if __name__ == "__main__":
    main()
