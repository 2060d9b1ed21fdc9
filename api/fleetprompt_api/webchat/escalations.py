"""Handing a conversation to the team elsewhere, and what to do where nobody knows whether it arrived."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import InvalidError
from fleetprompt.packages.operations import Resolution
from fleetprompt.webchat import escalation, inbox
from fleetprompt.webchat.escalation_resolving import RESOLVE, check_resolution
from fleetprompt.webchat.telling import correlation_of
from fleetprompt_api.auth import Platform, WebchatWrite, actor_of
from fleetprompt_api.idempotency import IdempotencyKey
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.webchat.asked import Asked, ask, asked
from fleetprompt_api.wire import Text

routes = router("webchat")


class Escalation(BaseModel):
    """Where to: an installation's Mattermost connection, or mail to an address that administrators set.

    `channel` null is the webhook's own, `email` null the first address.
    """

    model_config = ConfigDict(extra="forbid")

    to: Literal["mattermost", "email"] = "mattermost"
    installation_id: UUID | None = None
    channel: Annotated[Text | None, Field(max_length=64)] = None
    email: Annotated[Text | None, Field(max_length=254)] = None


class EscalationResolution(BaseModel):
    """What to do about it: look for it, send it again (it may then be there twice), give it up."""

    model_config = ConfigDict(extra="forbid")

    action: Resolution


@routes.post(
    "/webchat/conversations/{conversation_id}/escalations", status_code=202, responses=problems(409)
)
async def escalate_conversation(
    conversation_id: UUID, to: Escalation, caller: WebchatWrite, platform: Platform
) -> Asked:
    """Post it to a channel of the team, or mail it; asked before for this place, there is that directive."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id)
        if to.to == "email":
            directive, _ = await escalation.escalate_by_email(
                session, caller.tenant, conversation, address=to.email, actor=actor_of(caller)
            )
        elif to.installation_id is None:
            errors = [{"pointer": "/installation_id", "detail": "whose Mattermost connection"}]
            raise InvalidError(errors=errors)
        else:
            directive, _ = await escalation.escalate(
                session,
                caller.tenant,
                conversation,
                installation_id=to.installation_id,
                channel=to.channel,
                actor=actor_of(caller),
            )
        found = await asked(session, directive.id)
    await notify_directives(platform.database)
    return found


@routes.post(
    "/webchat/conversations/{conversation_id}/escalations/{directive_id}/resolve",
    status_code=202,
    responses=problems(409),
)
async def resolve_escalation(
    conversation_id: UUID,
    directive_id: UUID,
    new: EscalationResolution,
    caller: WebchatWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Asked:
    """Ask for something to be done about an escalation that failed or may not have arrived.

    `directive_id` is what asking for the escalation answered.
    """
    params = {
        "conversation_id": str(conversation_id),
        "escalation_id": str(directive_id),
        "action": new.action,
    }
    async with platform.database.tenant(caller.tenant.schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id)

        async def check() -> None:
            await check_resolution(session, conversation, directive_id, new.action)

        found = await ask(
            session,
            caller,
            RESOLVE,
            params,
            idempotency_key,
            correlation_id=correlation_of(conversation_id),
            check=check,
        )
    await notify_directives(platform.database)
    return found
