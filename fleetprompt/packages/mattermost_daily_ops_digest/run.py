"""One digest from its window to a post."""

from typing import Any

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.packages.digest.run import (
    Written,
    kept_so_far,
    read_material,
    send_digest,
    skip_paused,
)
from fleetprompt.packages.digest.story import Story
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import open_way, posting_place
from fleetprompt.packages.mattermost_daily_ops_digest.picture import picture_of, wants_picture
from fleetprompt.packages.mattermost_daily_ops_digest.posting import post_once
from fleetprompt.packages.mattermost_daily_ops_digest.record import Posting
from fleetprompt.packages.mattermost_daily_ops_digest.requests import KIND, DigestParams
from fleetprompt.packages.service import INSTALLED, get_installation


async def run_digest(context: HandlerContext, params: DigestParams) -> dict[str, Any]:
    """Post the digest of the params' window once; the result tells the ledger's state."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        if installation.state not in INSTALLED:
            return await skip_paused(session, params, installation)
        config = digest_config.validate(installation.config)
        place = await posting_place(session, config)
        material = await read_material(session, context, KIND, params)

    async def post(written: Written) -> dict[str, Any]:
        text, story = written.text, Story.of(context.directive, params)
        posting = Posting(story, config, place.destination, text.sha256)
        silent = config.silent_when_green and not text.failing
        picture = picture_of(config, await kept_so_far(context)) if wants_picture(config) else None
        way = await open_way(
            context, config, text.text, silent=silent, picture=picture, read=place.credential
        )
        key = params.dedupe_key(context.tenant)
        return await post_once(context, posting, way, key, written)

    return await send_digest(context, KIND, params, config, material, post)
