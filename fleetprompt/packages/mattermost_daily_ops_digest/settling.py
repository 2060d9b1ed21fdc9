"""Settling a post that was not certainly posted."""

from typing import Any

from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.outbound.delivery import Delivery
from fleetprompt.packages.digest.settling import case_of, give_up, keep_posted, require_installed
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import (
    destination_of,
    open_way,
    tell_left_out,
)
from fleetprompt.packages.mattermost_daily_ops_digest.picture import picture_of
from fleetprompt.packages.mattermost_daily_ops_digest.record import Posting
from fleetprompt.packages.mattermost_daily_ops_digest.requests import KIND, SettleParams
from fleetprompt.packages.service import get_installation


async def settle_message(context: HandlerContext, params: SettleParams) -> dict[str, Any]:
    """Do what the action says; the result tells what the ledger says afterwards."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        case = await case_of(session, KIND, params)
        if params.action == "give_up":
            return await give_up(session, context, KIND, case)
        config = digest_config.validate(installation.config)
        require_installed(installation)
        destination = await destination_of(session, config)
    message = case.message
    posting = Posting(case.story, config, destination, message.content_sha256)
    silent = config.silent_when_green and not case.kept.get("failing")
    picture = picture_of(config, case.kept)
    way = await open_way(context, config, case.kept["text"], silent=silent, picture=picture)
    delivery = Delivery(
        context.database,
        context.tenant.schema,
        case.intent(destination),
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
        await tell_left_out(context, way)
    if found is None and params.action == "finish":
        # Posted by the other side's own word, and not to be seen: it may be a replica that lags.
        raise DirectiveFailed("network", "The post is not to be seen yet.", retry_after=60.0)
    if found is None:
        return {"ledger_state": message.state, "found": False}
    await keep_posted(context, case, permalink=found.permalink)
    return {
        "ledger_state": "posted",
        "found": True,
        "remote_id": found.remote_id,
        "permalink": found.permalink,
    }
