"""What every digest offers to the platform: its schedule, and being asked for."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.packages.digest.config import DigestConfig
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.requests import request_manual, request_scheduled, request_test
from fleetprompt.packages.digest.settling import request_resolution
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Resolution
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import Schedule
from fleetprompt.tenants.service import Tenant


class DigestOperations:
    """A digest's part in scheduling and running; its package adds how it connects."""

    def __init__(
        self, kind: DigestKind, validate: Callable[[Mapping[str, Any]], DigestConfig]
    ) -> None:
        self.kind = kind
        self._validate = validate

    @property
    def run_directive(self) -> str:
        """The directive type of one digest."""
        return self.kind.run

    @property
    def test_directive(self) -> str:
        """The directive type of one test."""
        return self.kind.test

    def destination(self, installation: Installation) -> str:
        """What stands in correlation ids for where it goes."""
        raise NotImplementedError

    def schedule(self, config: Mapping[str, Any]) -> Schedule | None:
        """Daily at the configured time, once it is connected and unless it is paused."""
        checked = self._validate(config)
        if not checked.enabled or checked.missing():
            return None
        return Schedule(checked.time_of_day, checked.zone)

    async def request_run(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        actor: Actor,
        now: datetime,
    ) -> tuple[Directive, Execution]:
        """A digest of the 24 hours up to now."""
        return await request_manual(session, self.kind, tenant, installation, actor, now)

    async def request_scheduled(
        self, session: AsyncSession, tenant: Tenant, installation: Installation, slot: ScheduleSlot
    ) -> Directive:
        """The digest of the slot's window."""
        return await request_scheduled(
            session, self.kind, tenant, installation, slot, self.destination(installation)
        )

    async def request_test(
        self, session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor
    ) -> tuple[Directive, Execution]:
        """A few words, to show that it works."""
        params = self.kind.trial(installation_id=installation.id, execution_id=new_id())
        return await request_test(session, self.kind, tenant, params, actor)

    async def request_resolution(
        self,
        session: AsyncSession,
        tenant: Tenant,
        installation: Installation,
        message_id: UUID,
        resolution: Resolution,
        actor: Actor,
    ) -> Directive:
        """Look for a message, send it again, or give it up."""
        return await request_resolution(
            session, self.kind, tenant, installation, message_id, resolution, actor
        )
