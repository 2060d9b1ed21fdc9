"""What can be done about a message that was not certainly posted: look, post again, give up.

The platform does the first two by itself where it can read the channel (action ``finish``).
"""

from dataclasses import dataclass
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
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import destination_of, open_way
from fleetprompt.packages.mattermost_daily_ops_digest.record import Posting, Story, tell
from fleetprompt.packages.mattermost_daily_ops_digest.requests import (
    RUN,
    SETTLE,
    DigestParams,
    SettleParams,
    TestPostParams,
)
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Resolution
from fleetprompt.packages.service import INSTALLED, get_installation
from fleetprompt.tenants.service import Tenant

# What each action may be asked for.
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
    """The directive that does it; ConflictError where the message's state does not allow it."""
    message = await doubt.read(session, message_id, lock=True)
    execution = await session.get(Execution, message.execution_id) if message.execution_id else None
    if execution is None or execution.installation_id != installation.id:
        raise NotFoundError(f"There is no outbound message {message_id} of this installation.")
    if message.state not in _STATES[resolution]:
        raise ConflictError(f"The message is {message.state}; it cannot be settled like this.")
    if resolution == "look" and message.remote_place is None:
        raise ConflictError(
            "It was posted through a webhook alone, which cannot look for posts. Look into the channel, "
            "then post it again or give it up."
        )
    directive, _ = await request_directive(
        session,
        tenant,
        SETTLE,
        SettleParams(installation_id=installation.id, message_id=message_id, action=resolution),
        idempotency_key=f"dir:digest_settle:{tenant.slug}:{message_id}:{resolution}:{new_id()}",
        actor=actor,
        correlation_id=message.correlation_id,
        causation_id=f"outbound_message:{message_id}",
    )
    return directive


@dataclass(frozen=True, slots=True)
class _Case:
    """A message with what it was: its story, its text, and what that text's execution kept."""

    message: OutboundMessage
    story: Story
    text: str
    failing: bool


async def settle_message(context: HandlerContext, params: SettleParams) -> dict[str, Any]:
    """Do what the action says; the result tells what the ledger says afterwards."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        case = await _case_of(session, params)
        if params.action == "give_up":
            return await _give_up(session, context, case)
        config = digest_config.validate(installation.config)
        if installation.state not in INSTALLED:
            raise DirectiveFailed("validation", f"The installation is {installation.state}.")
        destination = await destination_of(session, config)
    message = case.message
    posting = Posting(case.story, config, destination, message.content_sha256)
    silent = config.silent_when_green and not case.failing
    way = await open_way(context, config, case.text, silent=silent)
    delivery = Delivery(
        context.database,
        context.tenant.schema,
        Intent(
            dedupe_key=message.dedupe_key,
            provider=message.provider,
            destination=destination,
            content_sha256=message.content_sha256,
            correlation_id=message.correlation_id,
            directive_id=message.directive_id,
            execution_id=message.execution_id,
        ),
        way,
        posting.posted,
        context.settings.absence_seconds,
        word=context.directive.id if params.action == "post_again" else None,
    )
    if params.action == "look" or message.state == "posted":
        if not way.can_look:
            raise DirectiveFailed("validation", "Posts cannot be looked for without a token.")
        found = await delivery.look(message)
    else:
        found = await delivery.deliver()
    if found is None and params.action == "finish":
        # Posted by the other side's own word, and not to be seen: it may be a replica that lags.
        raise DirectiveFailed("network", "The post is not to be seen yet.", retry_after=60.0)
    if found is None:
        return {"ledger_state": message.state, "found": False}
    async with context.database.tenant(context.tenant.schema) as session:
        await _keep_state(session, message, found.permalink)
    return {
        "ledger_state": "posted",
        "found": True,
        "remote_id": found.remote_id,
        "permalink": found.permalink,
    }


async def _case_of(session: AsyncSession, params: SettleParams) -> _Case:
    try:
        message = await doubt.read(session, params.message_id)
    except NotFoundError as error:
        raise DirectiveFailed("validation", error.detail) from None
    gone = DirectiveFailed("validation", "What was to be posted is not kept any more; run it anew.")
    if message.directive_id is None or message.execution_id is None:
        raise gone
    asked = await session.get(Directive, message.directive_id)
    execution = await session.get(Execution, message.execution_id)
    kept = (execution.result if execution else None) or {}
    if asked is None or "text" not in kept:
        raise gone
    kind = DigestParams if asked.type == RUN else TestPostParams
    story = Story.of(asked, kind.model_validate(asked.params))
    return _Case(message, story, kept["text"], bool(kept.get("failing")))


async def _give_up(session: AsyncSession, context: HandlerContext, case: _Case) -> dict[str, Any]:
    message, by = case.message, context.directive.id
    given_up = message.resolution == "given_up" and message.resolved_by == by
    if not given_up and not await doubt.give_up(session, message.id, resolved_by=by):
        raise DirectiveFailed(
            "validation", "The message is not unknown, or somebody is at work on it just now."
        )
    await tell(
        session,
        "mattermost.message.given_up",
        case.story,
        destination=message.destination,
        decided_by=context.directive.actor,
    )
    return {"ledger_state": message.state, "resolution": "given_up"}


async def _keep_state(
    session: AsyncSession, message: OutboundMessage, permalink: str | None
) -> None:
    execution = await session.get(Execution, message.execution_id, with_for_update=True)
    if execution is not None:
        execution.result = {
            **(execution.result or {}),
            "ledger_state": "posted",
            "permalink": permalink,
        }
