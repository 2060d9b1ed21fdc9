"""Asking for a digest or a test message: the window is fixed here, so that every attempt tells the same."""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.executions import service as executions
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.params import DigestParams, TestParams, WindowParams
from fleetprompt.packages.digest.story import Story, tell
from fleetprompt.packages.models import Installation
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.tenants.service import Tenant

_MANUAL_WINDOW = timedelta(hours=24)


async def request_scheduled(
    session: AsyncSession,
    kind: DigestKind,
    tenant: Tenant,
    installation: Installation,
    slot: ScheduleSlot,
    destination: str,
) -> Directive:
    """The directive of a slot's digest; asked for once, however often this is called."""
    params = kind.digest(
        installation_id=installation.id,
        trigger="scheduled",
        local_date=slot.local_date,
        window=WindowParams(start=slot.window_start, end=slot.window_end),
    )
    directive, created = await request_directive(
        session,
        tenant,
        kind.run,
        params,
        idempotency_key=f"dir:{kind.key}:{tenant.slug}:{installation.id}:{slot.local_date}",
        actor=PLATFORM,
        # Digests do not count what is under ``digest:``: that is their own doing.
        correlation_id=f"digest:{tenant.slug}:{slot.local_date}:{destination}",
        causation_id=f"slot:{installation.id}:{slot.local_date}",
    )
    if created:
        await tell(session, f"{kind.transport}.digest.requested", Story.of(directive, params))
    return directive


async def request_manual(
    session: AsyncSession,
    kind: DigestKind,
    tenant: Tenant,
    installation: Installation,
    actor: Actor,
    now: datetime,
) -> tuple[Directive, Execution]:
    """The directive and execution of a digest of the 24 hours up to ``now``."""
    params = kind.digest(
        installation_id=installation.id,
        trigger="manual",
        execution_id=new_id(),
        window=WindowParams(start=now - _MANUAL_WINDOW, end=now),
    )
    key = f"dir:{kind.key}:{tenant.slug}:manual:{params.execution_id}"
    directive, execution = await _with_execution(
        session, tenant, kind.run, params, actor, "manual", key
    )
    await tell(session, f"{kind.transport}.digest.requested", Story.of(directive, params))
    return directive, execution


async def request_test(
    session: AsyncSession, kind: DigestKind, tenant: Tenant, params: TestParams, actor: Actor
) -> tuple[Directive, Execution]:
    """The directive and execution of a test message."""
    key = f"dir:{kind.key}_test:{tenant.slug}:{params.execution_id}"
    return await _with_execution(session, tenant, kind.test, params, actor, "test", key)


async def _with_execution(
    session: AsyncSession,
    tenant: Tenant,
    type_: str,
    params: DigestParams | TestParams,
    actor: Actor,
    trigger: str,
    key: str,
) -> tuple[Directive, Execution]:
    correlation_id = f"digest:{tenant.slug}:{trigger}:{params.execution_id}"
    directive, _ = await request_directive(
        session,
        tenant,
        type_,
        params,
        idempotency_key=key,
        actor=actor,
        correlation_id=correlation_id,
    )
    execution = await executions.create(
        session,
        type_,
        execution_id=params.execution_id,
        correlation_id=correlation_id,
        directive_id=directive.id,
        installation_id=params.installation_id,
    )
    return directive, execution
