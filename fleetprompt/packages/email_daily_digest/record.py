"""What follows from a letter's outcome: ledger, slot, installation and signals, together."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import Failure
from fleetprompt.outbound import ledger
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.outbound.transports.gmail import MailWay
from fleetprompt.packages.email_daily_digest.config import Config
from fleetprompt.packages.email_daily_digest.connection import DESTINATION
from fleetprompt.packages.email_daily_digest.requests import (
    SETTLE,
    DigestParams,
    SettleParams,
    TestParams,
)
from fleetprompt.packages.mattermost_daily_ops_digest.record import Story, settle_slot, tell
from fleetprompt.packages.models import Installation
from fleetprompt.packages.service import INSTALLED, note_trouble
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.models import IntegrationCredential

PROVIDER = "email"
_FINISH_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Sending:
    """One letter on its way."""

    story: Story
    config: Config
    way: MailWay
    sha256: str

    async def posted(self, session: AsyncSession) -> None:
        """All that follows from its being sent, in the transaction that says so."""
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
        used = (
            self.config.gmail_credential_id
            if self.way.went_by == "gmail"
            else self.config.smtp_credential_id
        )
        await session.execute(
            update(IntegrationCredential)
            .where(IntegrationCredential.id == used)
            .values(state="connected", checked_at=now, last_error=None)
        )
        if isinstance(params, DigestParams):
            await settle_slot(session, params, "done")
        told = {"destination": DESTINATION, "transport": self.way.went_by}
        recipients = self.way.recipients or None
        await tell(
            session,
            "email.message.posted",
            self.story,
            sha256=self.sha256,
            recipients=recipients,
            **told,
        )
        if isinstance(params, DigestParams):
            await tell(session, "value.digest.posted", self.story, **told)


async def sending_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: DigestParams | TestParams,
    failure: Failure,
) -> None:
    """Show a failure on its installation and slot, and tell of its class once."""
    entry = await ledger.find(session, params.dedupe_key(tenant))
    if entry is not None and entry.state == "posted":
        return
    await note_trouble(session, params.installation_id, failure.error_kind, failure.message)
    if isinstance(params, DigestParams):
        await settle_slot(session, params, "failed")
    unknown = failure.state == "unknown" or (entry is not None and entry.state == "unknown")
    await tell(
        session,
        "email.message.failed",
        Story.of(directive, params),
        destination=DESTINATION,
        error_kind=failure.error_kind,
        error_message=failure.message,
        outcome="unknown" if unknown else "not_posted",
        attempts=directive.attempt,
    )
    if failure.state != "cancelled" and entry is not None and _can_be_finished(entry):
        await request_finish(session, tenant, params.installation_id, entry.id)


def _can_be_finished(entry: OutboundMessage) -> bool:
    """Whether it was never sent, or its draft can be looked at."""
    looked_for = entry.state in ("sending", "unknown") and entry.remote_place is not None
    return entry.state == "claimed" or looked_for


async def request_finish(
    session: AsyncSession, tenant: Tenant, installation_id: UUID, message_id: UUID
) -> None:
    """Have the platform look at a draft by itself, and send the letter if it is certainly not sent."""
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    await request_directive(
        session,
        tenant,
        SETTLE,
        SettleParams(installation_id=installation_id, message_id=message_id, action="finish"),
        idempotency_key=f"dir:email_settle:{tenant.slug}:{message_id}:finish",
        actor=PLATFORM,
        available_at=now + _FINISH_AFTER,
    )
