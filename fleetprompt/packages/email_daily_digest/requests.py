"""Asking for a digest by e-mail, a test e-mail, or something to be done about one in doubt."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.executions import service as executions
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.packages.mattermost_daily_ops_digest import requests as digests
from fleetprompt.packages.mattermost_daily_ops_digest.record import Story, tell
from fleetprompt.packages.mattermost_daily_ops_digest.requests import SettleParams, WindowParams
from fleetprompt.packages.models import Installation
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.tenants.service import Tenant

RUN = "email_digest.run"
TEST = "email_digest.test"
SETTLE = "email_digest.settle"
_MANUAL_WINDOW = timedelta(hours=24)

__all__ = [
    "RUN",
    "SETTLE",
    "TEST",
    "DigestParams",
    "SettleParams",
    "TestParams",
    "request_manual",
    "request_scheduled",
    "request_test",
]


class DigestParams(digests.DigestParams):
    """One digest by e-mail; as the one to Mattermost, with a key of its own."""

    def dedupe_key(self, tenant: Tenant) -> str:
        """What makes it one letter: the date or the run, whatever it says and whoever gets it."""
        which = self.local_date if self.trigger == "scheduled" else f"manual:{self.execution_id}"
        return f"email_digest:{tenant.slug}:{self.installation_id}:{which}"


class TestParams(digests.TestPostParams):
    """One test e-mail, to all active admins or to those of them who are named."""

    __test__ = False  # not a test, whatever its name

    to: tuple[str, ...] | None = Field(default=None, max_length=200)

    def dedupe_key(self, tenant: Tenant) -> str:
        """Of its own, so that it takes no digest's place (trap 20)."""
        return f"email_test:{tenant.slug}:{self.installation_id}:{self.execution_id}"


async def request_scheduled(
    session: AsyncSession, tenant: Tenant, installation: Installation, slot: ScheduleSlot
) -> Directive:
    """The directive of a slot's digest; asked for once, however often this is called."""
    params = DigestParams(
        installation_id=installation.id,
        trigger="scheduled",
        local_date=slot.local_date,
        window=WindowParams(start=slot.window_start, end=slot.window_end),
    )
    directive, created = await request_directive(
        session,
        tenant,
        RUN,
        params,
        idempotency_key=f"dir:email_digest:{tenant.slug}:{installation.id}:{slot.local_date}",
        actor=PLATFORM,
        # Digests do not count what is under ``digest:``: that is their own doing.
        correlation_id=f"digest:{tenant.slug}:{slot.local_date}:email",
        causation_id=f"slot:{installation.id}:{slot.local_date}",
    )
    if created:
        await tell(session, "email.digest.requested", Story.of(directive, params))
    return directive


async def request_manual(
    session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor, now: datetime
) -> tuple[Directive, Execution]:
    """The directive and execution of a digest of the 24 hours up to ``now``."""
    execution_id = new_id()
    params = DigestParams(
        installation_id=installation.id,
        trigger="manual",
        execution_id=execution_id,
        window=WindowParams(start=now - _MANUAL_WINDOW, end=now),
    )
    return await _with_execution(session, tenant, RUN, params, actor, "manual")


async def request_test(
    session: AsyncSession,
    tenant: Tenant,
    installation: Installation,
    actor: Actor,
    to: Sequence[str] | None = None,
) -> tuple[Directive, Execution]:
    """The directive and execution of a test e-mail."""
    params = TestParams(
        installation_id=installation.id,
        execution_id=new_id(),
        to=None if to is None else tuple(to),
    )
    return await _with_execution(session, tenant, TEST, params, actor, "test")


async def _with_execution(
    session: AsyncSession,
    tenant: Tenant,
    kind: str,
    params: DigestParams | TestParams,
    actor: Actor,
    trigger: str,
) -> tuple[Directive, Execution]:
    correlation_id = f"digest:{tenant.slug}:{trigger}:{params.execution_id}"
    directive, _ = await request_directive(
        session,
        tenant,
        kind,
        params,
        idempotency_key=f"dir:email_digest:{tenant.slug}:{trigger}:{params.execution_id}",
        actor=actor,
        correlation_id=correlation_id,
    )
    execution = await executions.create(
        session,
        kind,
        execution_id=params.execution_id,
        correlation_id=correlation_id,
        directive_id=directive.id,
        installation_id=params.installation_id,
    )
    if isinstance(params, DigestParams):
        await tell(session, "email.digest.requested", Story.of(directive, params))
    return directive, execution
