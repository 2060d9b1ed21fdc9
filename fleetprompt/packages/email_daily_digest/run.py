"""One digest from its window to a letter: collect, write, enter in the ledger, send, tell.

What was written is kept before anything is sent, so that the next attempt sends the same letter; the
ledger decides whether it may be sent, and the admins are asked for at that moment.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import TIMESTAMP, cast, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.executions.models import Execution
from fleetprompt.packages.email_daily_digest import config as email_config
from fleetprompt.packages.email_daily_digest.chart import BARS, Bar
from fleetprompt.packages.email_daily_digest.config import Config
from fleetprompt.packages.email_daily_digest.requests import RUN, DigestParams
from fleetprompt.packages.email_daily_digest.sending import note, send_once, tenant_name
from fleetprompt.packages.mattermost_daily_ops_digest.collect import (
    Collected,
    Cut,
    Previous,
    collect,
)
from fleetprompt.packages.mattermost_daily_ops_digest.delivery_record import delivery_record
from fleetprompt.packages.mattermost_daily_ops_digest.history import Past
from fleetprompt.packages.mattermost_daily_ops_digest.memory import kept_of
from fleetprompt.packages.mattermost_daily_ops_digest.record import Story, settle_slot, tell
from fleetprompt.packages.mattermost_daily_ops_digest.render import DigestText, render
from fleetprompt.packages.mattermost_daily_ops_digest.wording import Links
from fleetprompt.packages.service import INSTALLED, get_installation
from fleetprompt.schedules.local_time import Window


async def run_digest(context: HandlerContext, params: DigestParams) -> dict[str, Any]:
    """Mail the digest of the params' window once; the result tells the ledger's state."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        config = email_config.validate(installation.config)
        if installation.state not in INSTALLED:
            await settle_slot(session, params, "skipped_paused")
            reason = f"the installation is {installation.state}"
            return {"ledger_state": "skipped", "reason": reason}
    text = await _written(context, params, config)
    told: dict[str, Any] = {"sha256": text.sha256, "line_count": text.line_count}
    if text.empty and config.empty_window == "skip":
        async with context.database.tenant(context.tenant.schema) as session:
            await settle_slot(session, params, "done")
        told["ledger_state"] = "skipped_empty"
    else:
        told |= await send_once(context, params, config)
    await note(context, **told)
    return told


async def _written(context: HandlerContext, params: DigestParams, config: Config) -> DigestText:
    """The text: an earlier attempt's if there is one, else written now and kept at once."""
    kept = await context.execution.kept() or {}
    text = DigestText.from_json(kept) if "text" in kept else await _write(context, params, config)
    async with context.database.tenant(context.tenant.schema) as session:
        await tell(
            session,
            "email.digest.generated",
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
        kept = await _kept_before(session, params)
        delivered = await delivery_record(session, params.installation_id, window.end)
    async with context.database.tenant(context.tenant.schema) as session:
        collected = await collect(session, window, _previous(params, window, kept))
    tenant = await tenant_name(context)
    links = Links(
        console=context.settings.api_url,
        dagster=context.settings.dagster_base_url,
        correlation_id=context.directive.correlation_id,
        tenant=context.tenant.slug,
    )
    text = render(collected.facts, config.of_text, window, config.zone, tenant, links, delivered)
    await context.execution.keep(
        {
            "trigger": params.trigger,
            "local_date": params.local_date.isoformat() if params.local_date else None,
            "bars": [bar.as_json() for bar in _bars(collected, config, kept)],
            "tenant": tenant,
            "date": context.clock().isoformat(),
            **kept_of(collected),
            **text.as_json(),
            "ledger_state": "planned",
        }
    )
    await context.execution.log(
        "info", "digest written", lines=text.line_count, sha256=text.sha256, **text.counts
    )
    return text


async def _kept_before(session: AsyncSession, params: DigestParams) -> list[Mapping[str, Any]]:
    """What the installation's last scheduled digests before this window kept, oldest first."""
    ended = cast(Execution.result["window"]["end"].astext, TIMESTAMP(timezone=True))
    found = await session.scalars(
        select(Execution.result)
        .where(
            Execution.installation_id == params.installation_id,
            Execution.kind == RUN,
            Execution.result["trigger"].astext == "scheduled",
            ended <= params.window.start,
        )
        .order_by(ended.desc(), Execution.id.desc())
        .limit(BARS - 1)
    )
    latest = [one for one in found if one is not None]
    return list({one["window"]["end"]: one for one in reversed(latest)}.values())


def _previous(params: DigestParams, window: Window, kept: list[Mapping[str, Any]]) -> Previous:
    """The window before, with its cut where a scheduled digest continues one, and those before it."""
    pasts = tuple(Past.from_json(one) for one in kept)
    if params.trigger == "scheduled" and pasts and pasts[-1].window.end == window.start:
        cut = Cut.from_json(kept[-1]["cut"])
        return Previous(pasts[-1].window, cut, pasts[-1], pasts[:-1])
    before = Window(window.start - window.length, window.start)
    apart = tuple(past for past in pasts if past.window.end <= before.start)
    return Previous(before, history=apart)


def _bars(collected: Collected, config: Config, kept: list[Mapping[str, Any]]) -> list[Bar]:
    """This digest's figures after those of the digests before it, else of the window before."""
    facts = collected.facts
    pasts = [Past.from_json(one) for one in kept]
    told = [(past.window.end, past.totals) for past in pasts]
    if not told and facts.previous is not None:
        told = [(facts.window.start, facts.previous)]
    return [
        Bar(end.astimezone(config.zone).date().isoformat(), totals.signals, totals.errors)
        for end, totals in (*told, (facts.window.end, facts.totals))
    ]
