"""What can be done about a letter that was not certainly sent: look at its draft, send again, give up."""

from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.errors import ConflictError, NotFoundError
from fleetprompt.executions.models import Execution
from fleetprompt.ids import new_id
from fleetprompt.outbound import doubt
from fleetprompt.outbound.delivery import Delivery
from fleetprompt.outbound.ledger import Intent
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.email_daily_digest import config as email_config
from fleetprompt.packages.email_daily_digest.connection import DESTINATION, open_way
from fleetprompt.packages.email_daily_digest.letters import letter_of
from fleetprompt.packages.email_daily_digest.record import Sending
from fleetprompt.packages.email_daily_digest.requests import (
    RUN,
    SETTLE,
    DigestParams,
    SettleParams,
    TestParams,
)
from fleetprompt.packages.email_daily_digest.sending import deliver
from fleetprompt.packages.mattermost_daily_ops_digest.record import Story, tell
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Resolution
from fleetprompt.packages.service import INSTALLED, get_installation
from fleetprompt.tenants.service import Tenant

_STATES: dict[Resolution, tuple[str, ...]] = {
    "look": ("unknown",),
    "post_again": ("unknown", "rejected", "retryable"),
    "give_up": ("unknown",),
}


async def request_resolution(
    session: AsyncSession,
    tenant: Tenant,
    installation: Installation,
    message_id: UUID,
    resolution: Resolution,
    actor: Actor,
) -> Directive:
    """The directive that does it; ConflictError where the letter's state does not allow it."""
    message = await doubt.read(session, message_id, lock=True)
    execution = await session.get(Execution, message.execution_id) if message.execution_id else None
    if execution is None or execution.installation_id != installation.id:
        raise NotFoundError(f"There is no outbound message {message_id} of this installation.")
    if message.state not in _STATES[resolution]:
        raise ConflictError(f"The message is {message.state}; it cannot be settled like this.")
    if resolution == "look" and message.remote_place is None:
        raise ConflictError(
            "It went by a mail server, which cannot tell afterwards. Ask somebody who should have got "
            "it, then send it again or give it up."
        )
    directive, _ = await request_directive(
        session,
        tenant,
        SETTLE,
        SettleParams(installation_id=installation.id, message_id=message_id, action=resolution),
        idempotency_key=f"dir:email_settle:{tenant.slug}:{message_id}:{resolution}:{new_id()}",
        actor=actor,
        correlation_id=message.correlation_id,
        causation_id=f"outbound_message:{message_id}",
    )
    return directive


async def settle_letter(context: HandlerContext, params: SettleParams) -> dict[str, Any]:
    """Do what the action says; the result tells what the ledger says afterwards."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        message, asked, kept = await _case_of(session, params)
        story = Story.of(asked, _params_of(asked))
        if params.action == "give_up":
            return await _give_up(session, context, message, story)
    if installation.state not in INSTALLED:
        raise DirectiveFailed("validation", f"The installation is {installation.state}.")
    assert message.execution_id is not None  # noqa: S101 - _case_of has checked
    config = email_config.validate(installation.config)
    letter = letter_of(kept, message.execution_id)
    only = story.params.to if isinstance(story.params, TestParams) else None
    way = await open_way(context, config, letter, message, only)
    sending = Sending(story, config, way, message.content_sha256)
    intent = Intent(
        dedupe_key=message.dedupe_key,
        provider=message.provider,
        destination=DESTINATION,
        content_sha256=message.content_sha256,
        correlation_id=message.correlation_id,
        directive_id=message.directive_id,
        execution_id=message.execution_id,
    )
    if params.action == "look":
        delivery = Delivery(
            context.database,
            context.tenant.schema,
            intent,
            way,
            sending.posted,
            context.settings.absence_seconds,
        )
        if not way.can_look:
            raise DirectiveFailed("validation", "Only Gmail's drafts can be looked at.")
        found = await delivery.look(message)
    else:
        word = context.directive.id if params.action == "post_again" else None
        found = await deliver(context, intent, sending, word=word)
    if found is None:
        return {"ledger_state": message.state, "found": False}
    async with context.database.tenant(context.tenant.schema) as session:
        execution = await session.get(Execution, message.execution_id, with_for_update=True)
        if execution is not None:
            execution.result = {**(execution.result or {}), "ledger_state": "posted"}
    return {"ledger_state": "posted", "found": True, "remote_id": found.remote_id}


async def _case_of(
    session: AsyncSession, params: SettleParams
) -> tuple[OutboundMessage, Directive, dict[str, Any]]:
    """The letter's entry, the directive that asked for it, and what its execution keeps."""
    try:
        message = await doubt.read(session, params.message_id)
    except NotFoundError as error:
        raise DirectiveFailed("validation", error.detail) from None
    gone = DirectiveFailed("validation", "What was to be sent is not kept any more; run it anew.")
    if message.directive_id is None or message.execution_id is None:
        raise gone
    asked = await session.get(Directive, message.directive_id)
    execution = await session.get(Execution, message.execution_id)
    kept = (execution.result if execution else None) or {}
    if asked is None or "text" not in kept:
        raise gone
    return message, asked, kept


def _params_of(asked: Directive) -> DigestParams | TestParams:
    kind = DigestParams if asked.type == RUN else TestParams
    return kind.model_validate(asked.params)


async def _give_up(
    session: AsyncSession, context: HandlerContext, message: OutboundMessage, story: Story
) -> dict[str, Any]:
    by = context.directive.id
    given_up = message.resolution == "given_up" and message.resolved_by == by
    if not given_up and not await doubt.give_up(session, message.id, resolved_by=by):
        raise DirectiveFailed(
            "validation", "The message is not unknown, or somebody is at work on it just now."
        )
    await tell(
        session,
        "email.message.given_up",
        story,
        destination=DESTINATION,
        decided_by=context.directive.actor,
    )
    return {"ledger_state": message.state, "resolution": "given_up"}
