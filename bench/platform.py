"""A platform of the benchmark's own: PostgreSQL with fsync on, one tenant, servers on free ports."""

import asyncio
import base64
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

from fleetprompt.db.engine import Database
from fleetprompt.db.migrate import migrate
from fleetprompt.db.urls import application_url
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import Tenant, create_tenant


@dataclass(frozen=True)
class Bench:
    """Where the benchmarks run."""

    settings: Settings
    server: EmbeddedPostgres
    tenant: Tenant
    token: str

    def environment(self) -> dict[str, str]:
        """For processes of the platform."""
        key = self.settings.master_key
        return {
            **os.environ,
            "FLEETPROMPT_DATABASE_URL": self.server.owner_url,
            "FLEETPROMPT_APP_DATABASE_URL": application_url(self.settings),
            "FLEETPROMPT_STATE_DIR": str(self.settings.state_dir),
            "FLEETPROMPT_MASTER_KEY": key.get_secret_value() if key else "",
            "FLEETPROMPT_LOG_LEVEL": "WARNING",
            "BENCH_DATABASE_URL": self.server.owner_url,
            "BENCH_SCHEMA": "bench",
        }


@contextlib.contextmanager
def platform() -> Iterator[Bench]:
    """A fresh platform with one tenant, gone at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="fleetprompt-bench-") as folder,
        EmbeddedPostgres(Path(folder) / "pg") as server,
    ):
        settings = Settings(
            state_dir=Path(folder),
            database_url=SecretStr(server.owner_url),
            master_key=SecretStr(base64.b64encode(os.urandom(32)).decode()),
            master_key_source="env",
        )
        migrate(settings)
        tenant, token = asyncio.run(_tenant(settings))
        yield Bench(settings, server, tenant, token)


async def _tenant(settings: Settings) -> tuple[Tenant, str]:
    tenant = await create_tenant(settings, slug="acme", name="Acme")
    async with Database.application(settings) as database, database.platform() as session:
        request = KeyRequest(kind="user", name="bench", role="owner")
        return tenant, (await issue_key(session, settings, tenant, request))[1]


@contextlib.contextmanager
def serving(bench: Bench, app: str) -> Iterator[int]:
    """One uvicorn worker with ``app``; gives its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", app, "--port", str(port)),
            *("--no-access-log", "--log-level", "warning"),
        ],
        env=bench.environment(),
    )
    try:
        ends = time.monotonic() + 180
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/")
                break
            if time.monotonic() > ends or process.poll() is not None:
                raise RuntimeError(f"{app} does not answer")
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)
