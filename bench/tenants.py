"""A platform with many tenants, each with the daily digest installed, connected and set to one minute.

To make a thousand tenants takes minutes, so a server's data folder with all of them is kept in the
temporary folder, and each benchmark gets a copy of it. It is made anew whenever a migration changes.
"""

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from pydantic import SecretStr
from rich.console import Console

from bench.platform import Bench
from fleetprompt.db.engine import Database
from fleetprompt.db.migrate import migrate
from fleetprompt.db.migrations import platform, tenant
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages import credentials, service
from fleetprompt.packages.models import Installation
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, active_tenants, create_tenant
from fleetprompt.vault.cipher import encrypt
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.models import IntegrationCredential
from fleetprompt.vault.secret import Secret
from fleetprompt.vault.service import CREDENTIAL_FIELD, Vault
from tests.doubles.mattermost import running_mattermost

PACKAGE = "mattermost_daily_ops_digest"
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney")
_AT_ONCE = 4
_ADMIN = Actor("bench", "owner")
_MADE, _KEY = "made.json", "master.key"


@dataclass(frozen=True)
class Digested:
    """A tenant, and its installation of the digest."""

    tenant: Tenant
    installation: UUID
    zone: str


@dataclass(frozen=True)
class Fleet:
    """The platform with its tenants; ``bench.tenant`` is the first of them."""

    bench: Bench
    tenants: Sequence[Digested]


@contextlib.contextmanager
def fleet(console: Console, hook_url: str, count: int) -> Iterator[Fleet]:
    """A copy of the template, whose tenants post to ``hook_url``; gone at the end."""
    template = _template(console, count)
    with tempfile.TemporaryDirectory(prefix="fleetprompt-bench-") as folder:
        began = time.monotonic()
        subprocess.run(["cp", "-a", str(template / "pg"), folder], check=True)
        made = json.loads((template / _MADE).read_text())
        master_key = (template / _KEY).read_text()
        with EmbeddedPostgres(Path(folder) / "pg") as server:
            settings = _settings(Path(folder), server, master_key)
            tenants = [
                Digested(Tenant(UUID(id_), slug, schema), UUID(installation), zone)
                for id_, slug, schema, installation, zone in made
            ]
            asyncio.run(_connect_to(settings, tenants, hook_url))
            took = time.monotonic() - began
            console.print(f"  {count:,} tenants from a template after {took:.0f} s")
            yield Fleet(Bench(settings, server, tenants[0].tenant, ""), tenants)


def _template(console: Console, count: int) -> Path:
    """The folder of the template, made if it is not there."""
    history = sha256(str(count).encode())
    for chain in (platform, tenant):
        for path in sorted(Path(chain.__path__[0]).glob("versions/*.py")):
            history.update(path.read_bytes())
    name = f"fleetprompt-bench-{os.getuid()}-{count}-{history.hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    if (folder / _MADE).exists():
        return folder
    # One that was interrupted is gone on with.
    folder.mkdir(mode=0o700, exist_ok=True)
    kept_key = folder / _KEY
    if not kept_key.exists():
        kept_key.write_text(base64.b64encode(os.urandom(32)).decode())
    master_key = kept_key.read_text()
    # After a power failure it would have to be removed by hand.
    quick = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    with EmbeddedPostgres(folder / "pg", options=quick) as server, running_mattermost() as posts:
        settings = _settings(folder, server, master_key)
        migrate(settings)
        tenants = asyncio.run(_make(console, settings, count, posts.hook_url))
        with psycopg.connect(server.owner_url, autocommit=True) as connection:
            connection.execute("DELETE FROM fleetprompt.stale_partitions")
            connection.execute("VACUUM (ANALYZE)")
    known = [
        (str(one.tenant.id), one.tenant.slug, one.tenant.schema, str(one.installation), one.zone)
        for one in tenants
    ]
    os.sync()
    (folder / _MADE).write_text(json.dumps(known))
    return folder


def _settings(folder: Path, server: EmbeddedPostgres, master_key: str) -> Settings:
    return Settings(
        state_dir=folder,
        database_url=SecretStr(server.owner_url),
        master_key=SecretStr(master_key),
        master_key_source="env",
        # Mattermost's stand-in is on loopback.
        allow_plain_http=True,
        allowed_private_networks=("127.0.0.0/8",),
    )


async def _make(
    console: Console, settings: Settings, count: int, hook_url: str
) -> Sequence[Digested]:
    """The tenants first, several at once, then what each has; what is there already is passed over."""
    slugs = [f"acme-{number:04d}" for number in range(1, count + 1)]
    async with Database.application(settings) as database, database.platform() as session:
        tenants = {tenant.slug: tenant for tenant in await active_tenants(session)}
    missing = iter([slug for slug in slugs if slug not in tenants])
    began = time.monotonic()

    async def create_more() -> None:
        for slug in missing:
            tenants[slug] = await create_tenant(settings, slug=slug, name=slug)
            if len(tenants) % 100 == 0:
                took = time.monotonic() - began
                console.print(f"  {len(tenants):,} of {count:,} tenants made after {took:.0f} s")

    await asyncio.gather(*(create_more() for _ in range(_AT_ONCE)))
    async with (
        Database.application(settings) as database,
        DirectiveRunner(database, settings, owner="bench") as runner,
    ):
        return [
            await _equip(database, settings, runner, tenants[slug], zone, hook_url)
            for slug, zone in zip(slugs, cycle(ZONES), strict=False)
        ]


async def _equip(
    database: Database,
    settings: Settings,
    runner: DirectiveRunner,
    tenant: Tenant,
    zone: str,
    hook_url: str,
) -> Digested:
    """Install and connect the digest as an owner does, as far as that was not done."""
    config: Mapping[str, Any] = {
        "timezone": zone,
        "schedule_time": "09:00",
        "channel": "fleet-reports",
    }
    async with database.tenant(tenant.schema) as session:
        for installation in await service.list_installations(session):
            config = installation.config
            if installation.state == "connected":
                return Digested(tenant, installation.id, config["timezone"])
        directive, installation = await service.install(session, tenant, PACKAGE, config, _ADMIN)
    await runner.work(tenant, [directive.id])
    vault, client = Vault(database, load_master_key(settings)), OutboundClient(settings)
    _, tried = await credentials.connect(
        database, vault, client, settings, tenant, installation.id, Secret(hook_url), _ADMIN
    )
    assert tried.state == "connected", tried.message
    return Digested(tenant, installation.id, config["timezone"])


async def _connect_to(settings: Settings, tenants: Sequence[Digested], hook_url: str) -> None:
    """Seal the address of this run's Mattermost in place of the former one's."""
    async with Database.application(settings) as database:
        vault = Vault(database, load_master_key(settings))
        for one in tenants:
            key = await vault.current_key(one.tenant)
            async with database.tenant(one.tenant.schema) as session:
                installation = await session.get_one(Installation, one.installation)
                record_id = UUID(installation.config["mattermost_credential_id"])
                credential = await session.get_one(IntegrationCredential, record_id)
                sealed = encrypt(
                    key,
                    Secret(hook_url),
                    tenant=one.tenant.id,
                    record_id=record_id,
                    field=CREDENTIAL_FIELD,
                )
                credential.nonce, credential.ciphertext = sealed.nonce, sealed.ciphertext
