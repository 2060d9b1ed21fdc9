"""What people may do about an escalation that failed, or of which nobody knows whether it arrived.

Neither a webhook nor a mail server can be asked afterwards, so there is nothing to look at: it may be sent
again, knowing that it may then be there twice, or given up (``fleetprompt/outbound/doubt.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import DirectiveParams
from fleetprompt.errors import ConflictError, NotFoundError
from fleetprompt.outbound import doubt
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.operations import Resolution
from fleetprompt.webchat.email import SENDING, EmailEscalationParams, mail_conversation
from fleetprompt.webchat.escalation import ESCALATE_TO_EMAIL, PLACES
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.mattermost import EscalateParams, post_conversation
from fleetprompt.webchat.models import ChatConversation
from fleetprompt.webchat.telling import correlation_of, tell

RESOLVE = "webchat.escalation_resolve"
_CANNOT_LOOK = (
    "Neither a webhook nor a mail server can be asked whether it arrived. Look in the channel or the "
    "mailbox, then send it again or give it up."
)


class ResolveParams(DirectiveParams):
    """Which escalation of a conversation, by its directive's id, and what to do about it."""

    conversation_id: UUID
    escalation_id: UUID
    action: Literal["post_again", "give_up"]


@dataclass(frozen=True, slots=True)
class Escalated:
    """An escalation's directive with its message; ``by_connector``: a connector mails it, or was asked to."""

    directive: Directive
    message: OutboundMessage | None
    by_connector: bool

    @property
    def state(self) -> str:
        """What is known of it: the message's state where one was begun, else the directive's."""
        return self.directive.state if self.message is None else self.message.state

    @property
    def choices(self) -> tuple[Resolution, ...]:
        """What may be asked for now; nothing while an attempt may still follow by itself."""
        if self.by_connector or self.directive.state not in ("failed", "unknown"):
            return ()
        if self.state == "unknown" and self.message is not None:
            return ("post_again", "give_up")
        nothing_left = self.message is None or self.state in ("rejected", "retryable")
        return ("post_again",) if nothing_left else ()


async def escalated(session: AsyncSession, directives: Iterable[Directive]) -> list[Escalated]:
    """Those of the directives that are escalations, with what became of each."""
    found = {one.idempotency_key: one for one in directives if one.type in PLACES}
    messages = await session.scalars(
        select(OutboundMessage).where(OutboundMessage.dedupe_key.in_(found))
    )
    sent = {one.dedupe_key: one for one in messages}
    mails = await session.scalars(
        select(Directive.idempotency_key).where(
            Directive.idempotency_key.in_([f"{key}{SENDING}" for key in found])
        )
    )
    by_connector = {key.removesuffix(SENDING) for key in mails}
    return [Escalated(one, sent.get(key), key in by_connector) for key, one in found.items()]


async def check_resolution(
    session: AsyncSession, conversation: ChatConversation, escalation_id: UUID, action: Resolution
) -> None:
    """NotFoundError for what is no escalation of it, ConflictError for what its state does not allow."""
    found = await _find(session, conversation.id, escalation_id)
    if found is None:
        raise NotFoundError(f"The conversation has no escalation {escalation_id}.")
    if action == "look":
        raise ConflictError(_CANNOT_LOOK)
    if action == "post_again" and conversation.status == "erased":
        raise ConflictError("The conversation was erased; nothing of it is sent any more.")
    if action not in found.choices:
        raise ConflictError(f"The escalation is {found.state}; it cannot be settled like this.")


async def resolve_escalation(context: HandlerContext, params: ResolveParams) -> dict[str, Any]:
    """Send it once more under the same key, or note that it shall be left alone."""
    async with context.database.tenant(context.tenant.schema) as session:
        found = await _find(session, params.conversation_id, params.escalation_id)
        if found is None:
            raise DirectiveFailed("validation", "The conversation has no such escalation.")
        if params.action == "give_up":
            return await _give_up(session, context, params, found)
    asked, word = found.directive, context.directive.id
    if asked.type == ESCALATE_TO_EMAIL:
        mail = EmailEscalationParams.model_validate(asked.params)
        return await mail_conversation(context, mail, asked, word)
    post = EscalateParams.model_validate(asked.params)
    return await post_conversation(context, post, asked, word)


async def _give_up(
    session: AsyncSession, context: HandlerContext, params: ResolveParams, found: Escalated
) -> dict[str, Any]:
    message, by = found.message, context.directive.id
    given_up = (
        message is not None and message.resolution == "given_up" and message.resolved_by == by
    )
    if message is None or not (
        given_up or await doubt.give_up(session, message.id, resolved_by=by)
    ):
        raise DirectiveFailed(
            "validation", "The escalation is not unknown, or somebody is at work on it just now."
        )
    await tell(
        session,
        "escalation.given_up",
        await get_conversation(session, params.conversation_id),
        {
            "directive_id": str(found.directive.id),
            "to": PLACES[found.directive.type],
            "by": context.directive.actor,
        },
        dedupe_key=f"webchat_escalation_given_up:{found.directive.id}",
        causation_id=f"directive:{by}",
    )
    return {"resolution": "given_up"}


async def _find(
    session: AsyncSession, conversation_id: UUID, escalation_id: UUID
) -> Escalated | None:
    directive = await session.get(Directive, escalation_id)
    if directive is None or directive.correlation_id != correlation_of(conversation_id):
        return None
    return next(iter(await escalated(session, [directive])), None)
