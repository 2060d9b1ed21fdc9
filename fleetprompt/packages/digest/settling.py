"""What can be done about a message that was not certainly sent: look, send again, give up.

The platform does the first two by itself where it can look (action ``finish``).
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
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
from fleetprompt.outbound.ledger import Intent
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.params import SettleParams
from fleetprompt.packages.digest.story import Story, tell
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Resolution
from fleetprompt.packages.service import INSTALLED
from fleetprompt.tenants.service import Tenant

# What each action may be asked for.
_STATES: dict[Resolution, tuple[str, ...]] = {
    "look": ("unknown",),
    "post_again": ("unknown", "rejected", "retryable"),
    "give_up": ("unknown",),
}


async def request_resolution(
    session: AsyncSession,
    kind: DigestKind,
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
        raise ConflictError(kind.cannot_look)
    cause = f"outbound_message:{message_id}"
    if await _is_under_way(session, kind, cause, resolution):
        raise ConflictError("This was asked for already and is still being done.")
    directive, _ = await request_directive(
        session,
        tenant,
        kind.settle,
        SettleParams(installation_id=installation.id, message_id=message_id, action=resolution),
        idempotency_key=f"dir:{kind.key}_settle:{tenant.slug}:{message_id}:{resolution}:{new_id()}",
        actor=actor,
        correlation_id=message.correlation_id,
        causation_id=cause,
    )
    return directive


async def _is_under_way(
    session: AsyncSession, kind: DigestKind, cause: str, resolution: Resolution
) -> bool:
    """Whether a directive for the same is open: a second click is no second word to post it again."""
    asked = (
        Directive.causation_id == cause,
        Directive.type == kind.settle,
        Directive.params["action"].astext == resolution,
        Directive.finished_at.is_(None),
    )
    return await session.scalar(select(Directive.id).where(*asked).limit(1)) is not None


@dataclass(frozen=True, slots=True)
class Case:
    """A message with what it was: its story, and what its execution kept, the text among it."""

    message: OutboundMessage
    execution_id: UUID
    story: Story
    kept: dict[str, Any]

    def intent(self, destination: str) -> Intent:
        """The same message as it was meant."""
        return Intent(
            dedupe_key=self.message.dedupe_key,
            provider=self.message.provider,
            destination=destination,
            content_sha256=self.message.content_sha256,
            correlation_id=self.message.correlation_id,
            directive_id=self.message.directive_id,
            execution_id=self.execution_id,
        )


async def case_of(session: AsyncSession, kind: DigestKind, params: SettleParams) -> Case:
    """The message that is to be settled; DirectiveFailed where not enough is left of it."""
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
    story = Story.of(asked, kind.params_of(asked.type, asked.params))
    return Case(message, message.execution_id, story, kept)


def require_installed(installation: Installation) -> None:
    """DirectiveFailed where nothing may be sent for it."""
    if installation.state not in INSTALLED:
        raise DirectiveFailed("validation", f"The installation is {installation.state}.")


async def give_up(
    session: AsyncSession, context: HandlerContext, kind: DigestKind, case: Case
) -> dict[str, Any]:
    """Leave it as it is for good, by a person's word."""
    message, by = case.message, context.directive.id
    given_up = message.resolution == "given_up" and message.resolved_by == by
    if not given_up and not await doubt.give_up(session, message.id, resolved_by=by):
        raise DirectiveFailed(
            "validation", "The message is not unknown, or somebody is at work on it just now."
        )
    await tell(
        session,
        f"{kind.transport}.message.given_up",
        case.story,
        destination=message.destination,
        decided_by=context.directive.actor,
    )
    return {"ledger_state": message.state, "resolution": "given_up"}


async def keep_posted(context: HandlerContext, case: Case, **told: Any) -> None:
    """Say in the message's own execution that it is posted after all."""
    async with context.database.tenant(context.tenant.schema) as session:
        execution = await session.get(Execution, case.execution_id, with_for_update=True)
        if execution is not None:
            execution.result = {**(execution.result or {}), "ledger_state": "posted", **told}
