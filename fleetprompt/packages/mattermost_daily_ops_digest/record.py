"""What follows from a digest's outcome: ledger, slot, installation and signals, together."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.types import Failure
from fleetprompt.outbound import ledger
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.packages.mattermost_daily_ops_digest.render import DigestText
from fleetprompt.packages.mattermost_daily_ops_digest.requests import DigestParams
from fleetprompt.packages.models import Installation
from fleetprompt.packages.service import INSTALLED, note_trouble
from fleetprompt.schedules import slots
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.models import IntegrationCredential

PROVIDER = "mattermost"


@dataclass(frozen=True, slots=True)
class Digest:
    """One digest on its way."""

    params: DigestParams
    config: Config
    text: DigestText
    destination: str
    dedupe_key: str


async def record(
    session: AsyncSession,
    context: HandlerContext,
    digest: Digest,
    lease: ledger.Lease,
    outcome: Outcome,
) -> None:
    """The ledger's entry, and in the same transaction all that follows from a post."""
    await ledger.settle(
        session,
        lease,
        outcome.state,
        error_kind=outcome.error_kind,
        error_message=outcome.message or None,
        retry_in=outcome.retry_after_seconds if outcome.state == "retryable" else None,
        remote_id=outcome.remote_id,
    )
    if outcome.state == "posted":
        await _posted(session, context.directive, digest)


async def _posted(session: AsyncSession, directive: ClaimedDirective, digest: Digest) -> None:
    params = digest.params
    now = func.clock_timestamp()
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
        .where(IntegrationCredential.id == digest.config.mattermost_credential_id)
        .values(state="connected", checked_at=now, last_error=None)
    )
    await settle_slot(session, params, "done")
    await tell(
        session,
        "mattermost.message.posted",
        directive,
        params,
        destination=digest.destination,
        sha256=digest.text.sha256,
    )
    await tell(session, "value.digest.posted", directive, params, destination=digest.destination)


async def digest_failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: DigestParams,
    failure: Failure,
) -> None:
    """Show a digest's failure on its installation, slot and credential, and tell of it once.

    If the ledger says that it was posted after all, and only the attempts' ends were lost, there
    is nothing to tell.
    """
    entry = await ledger.find(session, params.dedupe_key(tenant))
    if entry is not None and entry.state == "posted":
        return
    await note_trouble(session, params.installation_id, failure.error_kind, failure.message)
    await settle_slot(session, params, "failed")
    if failure.error_kind == "auth":
        await session.execute(
            update(IntegrationCredential)
            .where(
                IntegrationCredential.installation_id == params.installation_id,
                IntegrationCredential.kind == PROVIDER,
            )
            .values(state="failing", checked_at=func.clock_timestamp(), last_error=failure.message)
        )
    await tell(
        session,
        "mattermost.message.failed",
        directive,
        params,
        destination=entry.destination if entry else None,
        error_kind=failure.error_kind,
        error_message=failure.message,
        outcome="unknown" if failure.state == "unknown" else "not_posted",
        attempts=directive.attempt,
    )


async def tell(
    session: AsyncSession,
    kind: str,
    directive: ClaimedDirective,
    params: DigestParams,
    **data: Any,
) -> None:
    """A signal about this digest, once for each directive; never its text."""
    await emit(
        session,
        NewSignal(
            type=kind,
            subject_type="installation",
            subject_id=str(params.installation_id),
            data={
                "installation_id": str(params.installation_id),
                "trigger": params.trigger,
                "window": params.window.model_dump(mode="json"),
                **{name: value for name, value in data.items() if value is not None},
            },
            correlation_id=directive.correlation_id,
            causation_id=f"directive:{directive.id}",
            dedupe_key=f"{kind}:{directive.id}",
        ),
    )


async def settle_slot(session: AsyncSession, params: DigestParams, state: slots.Settled) -> None:
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
