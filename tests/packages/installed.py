"""A tenant with the digest installed, and the platform's side of it, driven as the doors would."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages import credentials, runs, service
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Verification
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.secret import Secret
from fleetprompt.vault.service import Vault
from tests.doubles.mattermost import RunningMattermost

SLUG = "mattermost_daily_ops_digest"
ADMIN = Actor("user:ada", "admin")


@dataclass
class Platform:
    """One tenant's view of the platform; ``now`` is what the clock says, unset for the real time."""

    database: Database
    settings: Settings
    tenant: Tenant
    now: datetime | None = None
    outcomes: list[DirectiveOutcome] = field(default_factory=list)

    def clock(self) -> datetime:
        return self.now or system_clock()

    @property
    def vault(self) -> Vault:
        return Vault(self.database, load_master_key(self.settings))

    async def work(self, *, lease_seconds: float = 45, rounds: int = 1) -> list[DirectiveOutcome]:
        """Work off the tenant's directives, its delays passed over."""
        done: list[DirectiveOutcome] = []
        for _ in range(rounds):
            async with DirectiveRunner(
                self.database,
                self.settings,
                owner="test-worker",
                clock=self.clock,
                lease_seconds=lease_seconds,
            ) as runner:
                done += await runner.work(self.tenant, await self._waiting())
        self.outcomes += done
        return done

    async def _waiting(self) -> list[UUID]:
        async with self.database.tenant(self.tenant.schema) as session:
            await session.execute(
                text(
                    "UPDATE directives SET available_at = now(), changed_by = 'test'"
                    " WHERE state = 'pending' AND available_at > now()"
                )
            )
            return list(
                await session.scalars(
                    select(Directive.id)
                    .where(Directive.state.in_(("pending", "running")))
                    .order_by(Directive.id)
                )
            )

    async def hours_pass(self) -> None:
        """Let every lease and every wait in the tenant's tables run out."""
        async with self.database.tenant(self.tenant.schema) as session:
            for statement in (
                "UPDATE directives SET lease_expires_at = now(), changed_by = 'test'"
                " WHERE state = 'running'",
                "UPDATE outbound_messages SET lease_expires_at = now()"
                " WHERE lease_expires_at IS NOT NULL",
                "UPDATE outbound_messages SET retry_after = now() WHERE retry_after IS NOT NULL",
            ):
                await session.execute(text(statement))

    async def install(self, config: Mapping[str, Any] | None = None) -> Installation:
        async with self.database.tenant(self.tenant.schema) as session:
            _, installation = await service.install(session, self.tenant, SLUG, config or {}, ADMIN)
        await self.work()
        return await self.installation(installation.id)

    async def connect(
        self, installation_id: UUID, url: str, token: str | None = None
    ) -> tuple[Installation, Verification]:
        secret = url if token is None else json.dumps({"token": token, "url": url})
        return await credentials.connect(
            self.database,
            self.vault,
            OutboundClient(self.settings),
            self.settings,
            self.tenant,
            installation_id,
            Secret(secret),
            ADMIN,
            kind="mattermost" if token is None else "mattermost_token",
            clock=self.clock,
        )

    async def configure(self, installation_id: UUID, **config: Any) -> None:
        async with self.database.tenant(self.tenant.schema) as session:
            await service.configure(session, self.tenant, installation_id, config, ADMIN)
        await self.work()

    async def run_now(self, installation_id: UUID) -> tuple[Directive, Execution]:
        async with self.database.tenant(self.tenant.schema) as session:
            return await runs.run_now(
                session, self.tenant, installation_id, ADMIN, self.settings, self.clock()
            )

    async def installation(self, installation_id: UUID) -> Installation:
        async with self.database.tenant(self.tenant.schema) as session:
            return await service.get_installation(session, installation_id)

    async def execution(self, execution_id: UUID) -> Execution:
        async with self.database.tenant(self.tenant.schema) as session:
            return await session.get_one(Execution, execution_id)

    async def directive(self, directive_id: UUID) -> Directive:
        async with self.database.tenant(self.tenant.schema) as session:
            return await session.get_one(Directive, directive_id)

    async def ledger(self) -> list[OutboundMessage]:
        async with self.database.tenant(self.tenant.schema) as session:
            return list(await session.scalars(select(OutboundMessage).order_by(OutboundMessage.id)))

    async def slots(self) -> list[ScheduleSlot]:
        async with self.database.tenant(self.tenant.schema) as session:
            return list(
                await session.scalars(select(ScheduleSlot).order_by(ScheduleSlot.local_date))
            )

    async def commit_late(self, type_: str, stored_at: datetime) -> None:
        """A signal that was stored at ``stored_at`` and is committed only now."""
        async with self.database.tenant(self.tenant.schema) as session:
            await session.execute(
                text(
                    "INSERT INTO signals (id, type, source, occurred_at, inserted_at)"
                    " VALUES (:id, :type, 'test', :at, :at)"
                ),
                {"id": new_id(), "type": type_, "at": stored_at},
            )

    async def signals(self, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        """Types and data of the signals whose type starts so, in order."""
        async with self.database.tenant(self.tenant.schema) as session:
            rows = await session.execute(
                text("SELECT type, data FROM signals WHERE starts_with(type, :p) ORDER BY id"),
                {"p": prefix},
            )
            return [(row.type, row.data) for row in rows]


MODES = ("webhook", "bot", "hybrid")


async def connected_as(
    platform: Platform, mattermost: RunningMattermost, mode: str, **config: Any
) -> Installation:
    """An installation that posts to fleet-reports in this mode."""
    before = len(mattermost.posts)
    installation = await platform.install()
    named = {"mode": mode, "team": "operations", "channel": "fleet-reports"} | config
    await platform.configure(installation.id, **named)
    if mode != "bot":
        installation, tried = await platform.connect(installation.id, mattermost.hook_url)
        assert tried.state == "connected"
    if mode != "webhook":
        installation, tried = await platform.connect(
            installation.id, mattermost.base_url, mattermost.state.bot_token
        )
        assert tried.state == "connected", tried.message
    assert len(mattermost.posts) == before, "the check posted"
    return installation


async def connected(
    platform: Platform, mattermost: RunningMattermost, **config: Any
) -> Installation:
    installation = await platform.install()
    await platform.configure(installation.id, **config)
    installation, verification = await platform.connect(installation.id, mattermost.hook_url)
    assert verification.state == "connected"
    assert mattermost.posts == [], "the check posted"
    return installation
