"""What follows from a message's outcome: slot, installation, credential and signals, together."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import Failure
from fleetprompt.outbound import ledger
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.params import DigestParams, SettleParams, TestParams
from fleetprompt.packages.digest.story import Story, settle_slot, signal_of, tell
from fleetprompt.packages.service import INSTALLED, note_trouble
from fleetprompt.signals.emit import emit_all
from fleetprompt.tenants.service import Tenant

_FINISH_AFTER = timedelta(minutes=10)

# An installation that is switched off stays so.
_WORKS = text(
    """
    WITH credential AS (
      UPDATE integration_credentials
      SET state = 'connected', checked_at = clock_timestamp(), last_error = NULL WHERE id = :credential
    )
    UPDATE installations
    SET last_success_at = clock_timestamp(), updated_at = clock_timestamp(),
        state = CASE WHEN state = ANY(:installed) THEN 'connected' ELSE state END
    WHERE id = :installation
    """
).bindparams(bindparam("credential", type_=Uuid()))


async def sent(
    session: AsyncSession,
    kind: DigestKind,
    story: Story,
    credential_id: UUID | None,
    told: dict[str, Any],
    **further: Any,
) -> None:
    """All that follows from a message's being sent, in the transaction that says so.

    Its signals tell ``told``, the one about the message also what is ``further``.
    """
    params = story.params
    used = {"installation": params.installation_id, "credential": credential_id}
    await session.execute(_WORKS, {**used, "installed": list(INSTALLED)})
    await settle_slot(session, params, "done")
    signals = [signal_of(f"{kind.transport}.message.posted", story, **told, **further)]
    if isinstance(params, DigestParams):
        signals.append(signal_of("value.digest.posted", story, **told))
    await emit_all(session, signals)


async def not_sent(
    session: AsyncSession,
    kind: DigestKind,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: DigestParams | TestParams,
    failure: Failure,
) -> bool:
    """Show a failure on its installation and slot, and tell of its class once.

    False if the ledger says that it was sent after all, and only the attempts' ends were lost: then
    there is nothing to tell. What is unknown and can be looked for, the platform goes on looking for.
    """
    entry = await ledger.find(session, params.dedupe_key(tenant))
    if entry is not None and entry.state == "posted":
        return False
    await note_trouble(session, params.installation_id, failure.error_kind, failure.message)
    await settle_slot(session, params, "failed")
    unknown = failure.state == "unknown" or (entry is not None and entry.state == "unknown")
    await tell(
        session,
        f"{kind.transport}.message.failed",
        Story.of(directive, params),
        destination=entry.destination if entry else None,
        error_kind=failure.error_kind,
        error_message=failure.message,
        outcome="unknown" if unknown else "not_posted",
        attempts=directive.attempt,
    )
    if failure.state != "cancelled" and entry is not None and _can_be_finished(entry):
        await request_finish(session, kind, tenant, params.installation_id, entry.id)
    return True


def _can_be_finished(entry: OutboundMessage) -> bool:
    """Whether it was never sent, or can be looked for."""
    looked_for = entry.state in ("sending", "unknown") and entry.remote_place is not None
    return entry.state == "claimed" or looked_for


async def request_finish(
    session: AsyncSession,
    kind: DigestKind,
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
        kind.settle,
        SettleParams(installation_id=installation_id, message_id=message_id, action="finish"),
        idempotency_key=f"dir:{kind.key}_settle:{tenant.slug}:{message_id}:finish",
        actor=PLATFORM,
        available_at=now + after,
    )
