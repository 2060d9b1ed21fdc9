"""Asking for a digest: the window is fixed here, so that every attempt tells of the same one."""

from datetime import date, datetime, timedelta
from typing import Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import DirectiveParams
from fleetprompt.executions import service as executions
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.packages.models import Installation
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant

RUN = "digest.run"
TEST_POST = "digest.test_post"
SETTLE = "digest.settle"
_MANUAL_WINDOW = timedelta(hours=24)


class WindowParams(BaseModel):
    """The half-open window ``[start, end)``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start >= self.end:
            raise ValueError("the window must end after it starts")
        return self


class DigestParams(DirectiveParams):
    """One digest. ``execution_id`` belongs to a manual one, ``local_date`` to a scheduled one."""

    installation_id: UUID
    trigger: Literal["scheduled", "manual"]
    window: WindowParams
    local_date: date | None = None
    execution_id: UUID | None = None

    @model_validator(mode="after")
    def _identified(self) -> Self:
        named = self.local_date if self.trigger == "scheduled" else self.execution_id
        if named is None:
            raise ValueError("a scheduled digest needs local_date, a manual one execution_id")
        return self

    def dedupe_key(self, tenant: Tenant) -> str:
        """What makes it one message: the date or the run, not its time of day or looks (trap 21)."""
        which = self.local_date if self.trigger == "scheduled" else f"manual:{self.execution_id}"
        return f"mattermost_post:{tenant.slug}:{self.installation_id}:{which}"


class TestPostParams(DirectiveParams):
    """One test post, told of in one execution."""

    __test__ = False  # not a test, whatever its name

    installation_id: UUID
    execution_id: UUID

    def dedupe_key(self, tenant: Tenant) -> str:
        """Of its own, so that it takes no digest's place (trap 20)."""
        return f"mattermost_test:{tenant.slug}:{self.installation_id}:{self.execution_id}"


class SettleParams(DirectiveParams):
    """What to do about a message that was not certainly posted.

    ``finish`` is the platform's own: look, and send what is certainly not there.
    """

    installation_id: UUID
    message_id: UUID
    action: Literal["look", "post_again", "give_up", "finish"]


async def request_scheduled_digest(
    session: AsyncSession, tenant: Tenant, installation: Installation, slot: ScheduleSlot
) -> Directive:
    """The directive of a slot's digest; asked for once, however often this is called."""
    channel = installation.config.get("channel") or "default"
    key = f"dir:digest:{tenant.slug}:{installation.id}:{slot.local_date}"
    directive, created = await request_directive(
        session,
        tenant,
        RUN,
        DigestParams(
            installation_id=installation.id,
            trigger="scheduled",
            local_date=slot.local_date,
            window=WindowParams(start=slot.window_start, end=slot.window_end),
        ),
        idempotency_key=key,
        actor=PLATFORM,
        correlation_id=f"digest:{tenant.slug}:{slot.local_date}:{channel}",
        causation_id=f"slot:{installation.id}:{slot.local_date}",
    )
    if created:
        await _tell_requested(session, installation, directive, "scheduled")
    return directive


async def request_manual_digest(
    session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor, now: datetime
) -> tuple[Directive, Execution]:
    """The directive and execution of a digest of the 24 hours up to ``now``."""
    execution_id = new_id()
    correlation_id = f"digest:{tenant.slug}:manual:{execution_id}"
    directive, _ = await request_directive(
        session,
        tenant,
        RUN,
        DigestParams(
            installation_id=installation.id,
            trigger="manual",
            execution_id=execution_id,
            window=WindowParams(start=now - _MANUAL_WINDOW, end=now),
        ),
        idempotency_key=f"dir:digest:{tenant.slug}:manual:{execution_id}",
        actor=actor,
        correlation_id=correlation_id,
    )
    execution = await executions.create(
        session,
        RUN,
        execution_id=execution_id,
        correlation_id=correlation_id,
        directive_id=directive.id,
        installation_id=installation.id,
    )
    await _tell_requested(session, installation, directive, "manual")
    return directive, execution


async def request_test_post(
    session: AsyncSession, tenant: Tenant, installation: Installation, actor: Actor
) -> tuple[Directive, Execution]:
    """The directive and execution of a test post."""
    execution_id = new_id()
    correlation_id = f"digest:{tenant.slug}:test:{execution_id}"
    directive, _ = await request_directive(
        session,
        tenant,
        TEST_POST,
        TestPostParams(installation_id=installation.id, execution_id=execution_id),
        idempotency_key=f"dir:digest_test:{tenant.slug}:{execution_id}",
        actor=actor,
        correlation_id=correlation_id,
    )
    execution = await executions.create(
        session,
        TEST_POST,
        execution_id=execution_id,
        correlation_id=correlation_id,
        directive_id=directive.id,
        installation_id=installation.id,
    )
    return directive, execution


async def _tell_requested(
    session: AsyncSession, installation: Installation, directive: Directive, trigger: str
) -> None:
    await emit(
        session,
        NewSignal(
            type="mattermost.digest.requested",
            subject_type="installation",
            subject_id=str(installation.id),
            data={
                "installation_id": str(installation.id),
                "trigger": trigger,
                "window": directive.params["window"],
            },
            correlation_id=directive.correlation_id,
            causation_id=f"directive:{directive.id}",
            dedupe_key=f"mattermost.digest.requested:{directive.id}",
        ),
    )
