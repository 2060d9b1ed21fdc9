"""Settling a letter that was not certainly sent."""

from typing import Any

from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.outbound.delivery import Delivery
from fleetprompt.packages.digest.settling import case_of, give_up, keep_posted, require_installed
from fleetprompt.packages.email_daily_digest import config as email_config
from fleetprompt.packages.email_daily_digest.connection import DESTINATION, open_way
from fleetprompt.packages.email_daily_digest.letters import letter_of
from fleetprompt.packages.email_daily_digest.record import Sending
from fleetprompt.packages.email_daily_digest.requests import KIND, SettleParams, TestParams
from fleetprompt.packages.email_daily_digest.sending import deliver
from fleetprompt.packages.service import get_installation


async def settle_letter(context: HandlerContext, params: SettleParams) -> dict[str, Any]:
    """Do what the action says; the result tells what the ledger says afterwards."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        case = await case_of(session, KIND, params)
        if params.action == "give_up":
            return await give_up(session, context, KIND, case)
    require_installed(installation)
    config = email_config.validate(installation.config)
    message, asked = case.message, case.story.params
    only = asked.to if isinstance(asked, TestParams) else None
    way = await open_way(context, config, letter_of(case.kept, case.execution_id), message, only)
    sending = Sending(case.story, config, way, message.content_sha256)
    intent = case.intent(DESTINATION)
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
    await keep_posted(context, case)
    return {"ledger_state": "posted", "found": True, "remote_id": found.remote_id}
