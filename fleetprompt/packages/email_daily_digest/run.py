"""One digest from its window to a letter."""

from typing import Any

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.packages.digest.run import Written, read_material, send_digest, skip_paused
from fleetprompt.packages.email_daily_digest import config as email_config
from fleetprompt.packages.email_daily_digest.requests import KIND, DigestParams
from fleetprompt.packages.email_daily_digest.sending import send_once
from fleetprompt.packages.service import INSTALLED, get_installation


async def run_digest(context: HandlerContext, params: DigestParams) -> dict[str, Any]:
    """Mail the digest of the params' window once; the result tells the ledger's state."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        if installation.state not in INSTALLED:
            return await skip_paused(session, params, installation)
        config = email_config.validate(installation.config)
        material = await read_material(session, context, KIND, params)

    async def mail(written: Written) -> dict[str, Any]:
        await written.keep_now()
        return await send_once(context, params, config)

    return await send_digest(context, KIND, params, config, material, mail)
