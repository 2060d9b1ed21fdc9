"""One digest from its window to a post: collect, render, enter in the ledger, post, tell.

An attempt may die at any point and be followed by another. What was collected is kept before
anything is sent, so the next attempt has the same text; the ledger decides whether it may be sent
(research/mattermost_digest.md, traps 6, 17 to 21).
"""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.executions.models import Execution
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.collect import Cut, Previous, collect
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import destination_of, open_way
from fleetprompt.packages.mattermost_daily_ops_digest.facts import Totals
from fleetprompt.packages.mattermost_daily_ops_digest.posting import post_once
from fleetprompt.packages.mattermost_daily_ops_digest.record import (
    Posting,
    Story,
    settle_slot,
    tell,
)
from fleetprompt.packages.mattermost_daily_ops_digest.render import DigestText, render
from fleetprompt.packages.mattermost_daily_ops_digest.requests import RUN, DigestParams
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
    """The text, from the cut that an earlier attempt took if there was one; kept at once."""
    window = Window(params.window.start, params.window.end)
    kept = await context.execution.kept() or {}
    again = Cut.from_json(kept["cut"]) if "cut" in kept else None
    async with context.database.tenant(context.tenant.schema) as session:
        previous = await _previous(session, params, window)
    async with context.database.tenant(context.tenant.schema) as session:
        collected = await collect(session, window, previous, again=again)
    async with context.database.platform() as session:
        name = await session.scalar(
            select(Organization.name).where(Organization.id == context.tenant.id)
        )
    links = Links(
        console=context.settings.api_url,
        dagster=context.settings.dagster_base_url,
        correlation_id=context.directive.correlation_id,
    )
    text = render(collected.facts, config, window, config.zone, name or context.tenant.slug, links)
    await context.execution.keep(
        {
            "trigger": params.trigger,
            "local_date": params.local_date.isoformat() if params.local_date else None,
            "window": {"start": window.start.isoformat(), "end": window.end.isoformat()},
            "cut": collected.cut.as_json(),
            "totals": collected.facts.totals.as_json(),
            "text": text.text,
            "sha256": text.sha256,
            "line_count": text.line_count,
            "counts": dict(text.counts),
            "empty": text.empty,
            "failing": text.failing,
            "ledger_state": "planned",
        }
    )
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
    await context.execution.log(
        "info", "digest written", lines=text.line_count, sha256=text.sha256, **text.counts
    )
    return text


async def _previous(session: AsyncSession, params: DigestParams, window: Window) -> Previous:
    """The window before; a scheduled one with the cut that its digest stored."""
    before = Window(window.start - window.length, window.start)
    if params.trigger == "manual":
        return Previous(before)
    stored: dict[str, Any] | None = await session.scalar(
        select(Execution.result)
        .where(
            Execution.installation_id == params.installation_id,
            Execution.kind == RUN,
            Execution.result["trigger"].astext == "scheduled",
            Execution.result["window"]["end"].astext == window.start.isoformat(),
        )
        .order_by(Execution.id.desc())
        .limit(1)
    )
    if stored is None:
        return Previous(before)
    return Previous(
        Window(datetime.fromisoformat(stored["window"]["start"]), window.start),
        Cut.from_json(stored["cut"]),
        Totals.from_json(stored["totals"]),
    )


async def _ended(context: HandlerContext, result: dict[str, Any]) -> dict[str, Any]:
    kept = dict(context.execution.result or {})
    kept["ledger_state"] = result["ledger_state"]
    if result.get("permalink"):
        kept["permalink"] = result["permalink"]
    await context.execution.keep(kept)
    return result
