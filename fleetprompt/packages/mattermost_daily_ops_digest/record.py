"""What follows from a message's outcome: ledger, slot, installation and signals, together."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import Failure
from fleetprompt.outbound import ledger
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import TOKEN, WEBHOOK
from fleetprompt.packages.mattermost_daily_ops_digest.requests import (
    SETTLE,
    DigestParams,
    SettleParams,
    TestPostParams,
)
from fleetprompt.packages.models import Installation
from fleetprompt.packages.service import INSTALLED, note_trouble
from fleetprompt.schedules import slots
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.models import IntegrationCredential

PROVIDER = "mattermost"


@dataclass(frozen=True, slots=True)
class Story:
    """What a digest's or a test post's signals tell of: the directive that it was asked for with."""

    directive_id: UUID
    correlation_id: str | None
    params: DigestParams | TestPostParams

    @classmethod
    def of(
        cls, directive: ClaimedDirective | Directive, params: DigestParams | TestPostParams
    ) -> Self:
        """The story of this directive."""
        return cls(directive.id, directive.correlation_id, params)


@dataclass(frozen=True, slots=True)
class Posting:
    """One message on its way."""

    story: Story
    config: Config
    destination: str
    sha256: str

    async def posted(self, session: AsyncSession) -> None:
        """All that follows from its being posted, in the transaction that says so."""
        params, now = self.story.params, func.clock_timestamp()
        await session.execute(
            update(Installation)
            .where(Installation.id == params.installation_id)
            .values(last_success_at=now, updated_at=now)
        )
        await session.execute(
            update(Installation)
            .where(Installation.id == params.installation_id, Installation.state.in_(INSTALLED))
            .values(state="connected")
        )
        await session.execute(
            update(IntegrationCredential)
            .where(
                IntegrationCredential.id
                == (
                    self.config.mattermost_token_id
                    if self.config.mode == "bot"
                    else self.config.mattermost_credential_id
                )
            )
            .values(state="connected", checked_at=now, last_error=None)
        )
        digest = isinstance(params, DigestParams)
        if isinstance(params, DigestParams):
            await settle_slot(session, params, "done")
        await tell(
            session,
            "mattermost.message.posted",
            self.story,
            destination=self.destination,
            sha256=self.sha256,
        )
        if digest:
            await tell(session, "value.digest.posted", self.story, destination=self.destination)


async def post_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: DigestParams | TestPostParams,
    failure: Failure,
) -> None:
    """Show a failure on its installation, slot and credential, and tell of it once.

    If the ledger says that it was posted after all, and only the attempts' ends were lost, there
    is nothing to tell. What is unknown and can be looked for, the platform goes on looking for.
    """
    entry = await ledger.find(session, params.dedupe_key(tenant))
    if entry is not None and entry.state == "posted":
        return
    await note_trouble(session, params.installation_id, failure.error_kind, failure.message)
    if isinstance(params, DigestParams):
        await settle_slot(session, params, "failed")
    if failure.error_kind == "auth":
        await _note_bad_credential(session, params.installation_id, failure.message)
    unknown = failure.state == "unknown" or (entry is not None and entry.state == "unknown")
    await tell(
        session,
        "mattermost.message.failed",
        Story.of(directive, params),
        destination=entry.destination if entry else None,
        error_kind=failure.error_kind,
        error_message=failure.message,
        outcome="unknown" if unknown else "not_posted",
        attempts=directive.attempt,
    )
    if failure.state != "cancelled" and entry is not None and _can_be_finished(entry):
        await request_finish(session, tenant, params.installation_id, entry.id)


def _can_be_finished(entry: OutboundMessage) -> bool:
    """Whether it was never sent, or can be looked for."""
    looked_for = entry.state in ("sending", "unknown") and entry.remote_place is not None
    return entry.state == "claimed" or looked_for


_FINISH_AFTER = timedelta(minutes=10)


async def request_finish(
    session: AsyncSession,
    tenant: Tenant,
    installation_id: UUID,
    message_id: UUID,
    *,
    after: timedelta = _FINISH_AFTER,
) -> None:
    """Have the platform look for a message by itself, and send it if it is certainly not there."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    await request_directive(
        session,
        tenant,
        SETTLE,
        SettleParams(installation_id=installation_id, message_id=message_id, action="finish"),
        idempotency_key=f"dir:digest_settle:{tenant.slug}:{message_id}:finish",
        actor=PLATFORM,
        available_at=now + after,
    )


async def _note_bad_credential(session: AsyncSession, installation_id: UUID, message: str) -> None:
    """Mark the credential that posts as failing."""
    config = await session.scalar(
        select(Installation.config).where(Installation.id == installation_id)
    )
    bot = (config or {}).get("mode") == "bot"
    await session.execute(
        update(IntegrationCredential)
        .where(
            IntegrationCredential.installation_id == installation_id,
            IntegrationCredential.kind == (TOKEN if bot else WEBHOOK),
        )
        .values(state="failing", checked_at=func.clock_timestamp(), last_error=message)
    )


async def tell(session: AsyncSession, kind: str, story: Story, **data: Any) -> None:
    """A signal about this message, once for each directive; never its text."""
    params = story.params
    about: dict[str, Any] = {"trigger": "test"}
    if isinstance(params, DigestParams):
        about = {"trigger": params.trigger, "window": params.window.model_dump(mode="json")}
    await emit(
        session,
        NewSignal(
            type=kind,
            subject_type="installation",
            subject_id=str(params.installation_id),
            data={
                "installation_id": str(params.installation_id),
                **about,
                **{name: value for name, value in data.items() if value is not None},
            },
            correlation_id=story.correlation_id,
            causation_id=f"directive:{story.directive_id}",
            dedupe_key=f"{kind}:{story.directive_id}",
        ),
    )


async def settle_slot(session: AsyncSession, params: DigestParams, state: slots.Settled) -> None:
    """Say how a scheduled digest's slot ended."""
    if params.local_date is None:
        return
    slot = await session.scalar(
        select(ScheduleSlot).where(
            ScheduleSlot.installation_id == params.installation_id,
            ScheduleSlot.local_date == params.local_date,
        )
    )
    if slot is not None:
        await slots.settle(session, slot, state)
