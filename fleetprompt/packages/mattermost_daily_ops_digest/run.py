"""One digest from its window to a post: collect, render, enter in the ledger, post, tell.

An attempt may die at any point and be followed by another. What was collected is kept before
anything is sent, so the next attempt has the same text; the ledger decides whether it may be sent
(research/mattermost_digest.md, traps 6, 17 to 21).
"""

from typing import Any

from sqlalchemy import select

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.collect import collect
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import destination_of, open_way
from fleetprompt.packages.mattermost_daily_ops_digest.delivery_record import delivery_record
from fleetprompt.packages.mattermost_daily_ops_digest.memory import earlier, kept_of
from fleetprompt.packages.mattermost_daily_ops_digest.posting import keep_also, post_once
from fleetprompt.packages.mattermost_daily_ops_digest.record import (
    Posting,
    Story,
    settle_slot,
    tell,
)
from fleetprompt.packages.mattermost_daily_ops_digest.render import DigestText, render
from fleetprompt.packages.mattermost_daily_ops_digest.requests import DigestParams
from fleetprompt.packages.mattermost_daily_ops_digest.wording import Links
from fleetprompt.packages.service import INSTALLED, get_installation
from fleetprompt.schedules.local_time import Window
from fleetprompt.tenants.models import Organization


async def run_digest(context: HandlerContext, params: DigestParams) -> dict[str, Any]:
    """Post the digest of the params' window once; the result tells the ledger's state."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        config = digest_config.validate(installation.config)
        if installation.state not in INSTALLED:
            await settle_slot(session, params, "skipped_paused")
            return {
                "ledger_state": "skipped",
                "reason": f"the installation is {installation.state}",
            }
        destination = await destination_of(session, config)
    text = await _written(context, params, config)
    told = {"destination": destination, "sha256": text.sha256, "line_count": text.line_count}
    if text.empty and config.empty_window == "skip":
        async with context.database.tenant(context.tenant.schema) as session:
            await settle_slot(session, params, "done")
        return await _ended(context, {"ledger_state": "skipped_empty"} | told)
    posting = Posting(Story.of(context.directive, params), config, destination, text.sha256)
    silent = config.silent_when_green and not text.failing
    way = await open_way(context, config, text.text, silent=silent)
    delivered = await post_once(context, posting, way, params.dedupe_key(context.tenant))
    return await _ended(context, delivered | told)


async def _written(context: HandlerContext, params: DigestParams, config: Config) -> DigestText:
    """The text: an earlier attempt's if there is one, else written now and kept at once."""
    kept = await context.execution.kept() or {}
    text = DigestText.from_json(kept) if "text" in kept else await _write(context, params, config)
    async with context.database.tenant(context.tenant.schema) as session:
        await tell(
            session,
            "mattermost.digest.generated",
            Story.of(context.directive, params),
            sha256=text.sha256,
            line_count=text.line_count,
            counts=dict(text.counts),
            empty=text.empty,
        )
    return text


async def _write(context: HandlerContext, params: DigestParams, config: Config) -> DigestText:
    window = Window(params.window.start, params.window.end)
    async with context.database.tenant(context.tenant.schema) as session:
        previous = await earlier(session, params, window)
        delivered = await delivery_record(session, params.installation_id, window.end)
    async with context.database.tenant(context.tenant.schema) as session:
        collected = await collect(session, window, previous)
    async with context.database.platform() as session:
        name = await session.scalar(
            select(Organization.name).where(Organization.id == context.tenant.id)
        )
    links = Links(
        console=context.settings.api_url,
        dagster=context.settings.dagster_base_url,
        correlation_id=context.directive.correlation_id,
        tenant=context.tenant.slug,
    )
    shown = name or context.tenant.slug
    text = render(collected.facts, config, window, config.zone, shown, links, delivered)
    await context.execution.keep(
        {
            "trigger": params.trigger,
            "local_date": params.local_date.isoformat() if params.local_date else None,
            **kept_of(collected),
            **text.as_json(),
            "ledger_state": "planned",
        }
    )
    await context.execution.log(
        "info", "digest written", lines=text.line_count, sha256=text.sha256, **text.counts
    )
    return text


async def _ended(context: HandlerContext, result: dict[str, Any]) -> dict[str, Any]:
    told = {name: result[name] for name in ("ledger_state", "permalink") if result.get(name)}
    await keep_also(context, **told)
    return result
