"""Posting a notice once: through the ledger, and telling of it where it was posted."""

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from fleetprompt.directives.approvals.notices.setting import PROVIDER
from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.errors import DatabaseUnavailableError, NotFoundError, OverloadedError
from fleetprompt.outbound import ledger
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.mattermost import (
    WebhookMessage,
    WebhookUrl,
    parse_webhook_url,
    post_webhook,
)
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.vault.cipher import SealError

# Pauses in seconds while the database is away between a post and its entry in the ledger.
_PAUSES = (0.2, 1.0, 3.0, 10.0)


@dataclass(frozen=True, slots=True)
class Letter:
    """A notice with its address; ``destination`` is what people may see of it."""

    dedupe_key: str
    text: str
    channel: str | None
    credential_id: UUID
    destination: str

    @property
    def sha256(self) -> str:
        """Of the text, in hexadecimal."""
        return sha256(self.text.encode()).hexdigest()

    def intent(self, context: HandlerContext) -> ledger.Intent:
        """What the ledger keeps of it, under the attempt that posts it."""
        return ledger.Intent(
            dedupe_key=self.dedupe_key,
            provider=PROVIDER,
            destination=self.destination,
            content_sha256=self.sha256,
            correlation_id=context.directive.correlation_id,
            directive_id=context.directive.id,
            execution_id=context.execution.id,
        )


async def open_webhook(context: HandlerContext, letter: Letter) -> WebhookUrl:
    """The webhook's URL from the vault; DirectiveFailed where it cannot be opened."""
    try:
        secret = await context.vault.open_credential(context.tenant, letter.credential_id)
    except (SealError, NotFoundError) as error:
        raise DirectiveFailed(
            "auth", f"The stored webhook cannot be used: {error.detail} Connect Mattermost again."
        ) from None
    return parse_webhook_url(secret.reveal(), allow_plain_http=context.settings.allow_plain_http)


def lease_of(entry: ledger.Claimed) -> ledger.Lease | None:
    """The right to send, or None if it was posted before; raises if it must not be sent now."""
    if entry.lease is not None or entry.state == "posted":
        return entry.lease
    kind: Any = entry.error_kind or "unknown"
    message = entry.error_message or f"the message is {entry.state}"
    if entry.state == "unknown":
        raise OutcomeUnknown(message, error_kind=kind)
    if entry.state == "rejected":
        raise DirectiveFailed(kind, message)
    if entry.state == "retryable":
        raise DirectiveFailed(kind, message, retry_after=entry.wait)
    raise DirectiveFailed(
        "network", "Another attempt is sending this notice.", retry_after=entry.wait + 1
    )


async def post(
    context: HandlerContext,
    letter: Letter,
    url: WebhookUrl,
    lease: ledger.Lease,
    told: NewSignal | None = None,
) -> None:
    """Send it and record what became of it; raises unless it was posted.

    ``told`` is the signal that tells of it; unset, that an approval was notified.
    """
    message = WebhookMessage(
        text=letter.text,
        channel=letter.channel,
        props={"fleetprompt": {"key": letter.dedupe_key}},
    )
    async with context.database.tenant(context.tenant.schema) as session:
        await ledger.begin_sending(session, lease)
    outcome = await post_webhook(context.http, url, message)
    for pause in (*_PAUSES, None):
        try:
            await _record(context, letter, lease, outcome, told or _notified(context, letter))
            break
        except (DatabaseUnavailableError, OverloadedError):
            if pause is None:
                raise
            await asyncio.sleep(pause)
    if outcome.state == "posted":
        return
    if outcome.state == "unknown":
        raise OutcomeUnknown(outcome.message, error_kind=outcome.error_kind or "unknown")
    raise DirectiveFailed(
        outcome.error_kind or "unknown", outcome.message, retry_after=outcome.retry_after_seconds
    )


async def _record(
    context: HandlerContext,
    letter: Letter,
    lease: ledger.Lease,
    outcome: Outcome,
    told: NewSignal,
) -> None:
    async with context.database.tenant(context.tenant.schema) as session:
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
            await emit(session, told)


def _notified(context: HandlerContext, letter: Letter) -> NewSignal:
    directive = context.directive
    approval_id = directive.params.get("approval_id")
    return NewSignal(
        type="approval.notified",
        subject_type=None if approval_id is None else "approval",
        subject_id=approval_id,
        correlation_id=directive.correlation_id,
        causation_id=f"directive:{directive.id}",
        dedupe_key=f"approval.notified:{directive.id}",
        data={
            "notice": directive.params["notice"],
            "destination": letter.destination,
            "sha256": letter.sha256,
        },
    )
