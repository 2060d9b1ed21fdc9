"""One digest from its window to a message: collect, write, send, tell.

An attempt may die at any point and be followed by another. What was written is kept before anything
is sent, so that the next attempt sends the same; the ledger decides whether it may be sent
(research/mattermost_digest.md, traps 6, 17 to 21).
"""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import select

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.executions import service as executions
from fleetprompt.packages.digest.collect import collect
from fleetprompt.packages.digest.config import DigestConfig
from fleetprompt.packages.digest.delivery_record import delivery_record
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.memory import bars, earlier, kept_before, kept_of, last_told
from fleetprompt.packages.digest.params import DigestParams
from fleetprompt.packages.digest.render import DigestText, render
from fleetprompt.packages.digest.story import Story, settle_slot, tell
from fleetprompt.packages.digest.summary import keep_with_cost, summarise
from fleetprompt.packages.digest.wording import Links
from fleetprompt.packages.models import Installation
from fleetprompt.tenants.models import Organization

Send = Callable[[DigestText], Awaitable[dict[str, Any]]]


async def skip_paused(
    context: HandlerContext, params: DigestParams, installation: Installation
) -> dict[str, Any]:
    """The result of a digest that fell due while its installation could not send."""
    async with context.database.tenant(context.tenant.schema) as session:
        await settle_slot(session, params, "skipped_paused")
    return {"ledger_state": "skipped", "reason": f"the installation is {installation.state}"}


async def send_digest(
    context: HandlerContext,
    kind: DigestKind,
    params: DigestParams,
    config: DigestConfig,
    send: Send,
) -> dict[str, Any]:
    """Write the digest of the params' window and have it sent; the result tells the ledger's state."""
    text = await _written(context, kind, params, config)
    told: dict[str, Any] = {"sha256": text.sha256, "line_count": text.line_count}
    if text.empty and config.empty_window == "skip":
        async with context.database.tenant(context.tenant.schema) as session:
            await settle_slot(session, params, "done")
        told["ledger_state"] = "skipped_empty"
    else:
        told |= await send(text)
    # Committed with the end of the attempt.
    context.execution.result = {**await kept_so_far(context), **told}
    return told


async def keep_also(context: HandlerContext, **told: Any) -> None:
    """Add to what this attempt or an earlier one kept, such as the text."""
    await context.execution.keep({**await kept_so_far(context), **told})


async def kept_so_far(context: HandlerContext) -> dict[str, Any]:
    """What this attempt kept, else what an earlier one did."""
    if context.execution.result is None and context.directive.attempt > 1:
        return await context.execution.kept() or {}
    return context.execution.result or {}


async def tenant_name(context: HandlerContext) -> str:
    """The organization's name, else its slug."""
    async with context.database.platform() as session:
        name: str | None = await session.scalar(
            select(Organization.name).where(Organization.id == context.tenant.id)
        )
    return name or context.tenant.slug


async def _written(
    context: HandlerContext, kind: DigestKind, params: DigestParams, config: DigestConfig
) -> DigestText:
    """The text: an earlier attempt's if there is one, else written now and kept at once."""
    kept = await kept_so_far(context)
    if "text" in kept:
        return DigestText.from_json(kept)
    return await _write(context, kind, params, config)


async def _write(
    context: HandlerContext, kind: DigestKind, params: DigestParams, config: DigestConfig
) -> DigestText:
    window = params.window.as_window()
    async with context.database.tenant(context.tenant.schema) as session:
        kept = await kept_before(session, kind, params.installation_id, window.start)
        delivered = await delivery_record(session, params.installation_id, window.end)
        # Nothing was written in this transaction, so it does not hold the horizon.
        collected = await collect(session, window, earlier(params, kept))
    tenant = await tenant_name(context)
    links = Links(
        console=context.settings.api_url,
        dagster=context.settings.dagster_base_url,
        correlation_id=context.directive.correlation_id,
        tenant=context.tenant.slug,
    )
    summary = await summarise(context, config, collected.facts)
    text = render(
        collected.facts,
        config,
        window,
        config.zone,
        tenant,
        links,
        delivered,
        summary.text,
        last_told(params, kept),
    )
    result = {
        "trigger": params.trigger,
        "local_date": params.local_date.isoformat() if params.local_date else None,
        "bars": [bar.as_json() for bar in bars(collected, config, kept)],
        "tenant": tenant,
        "date": context.clock().isoformat(),
        "summary": summary.as_json(),
        **kept_of(collected),
        **text.as_json(),
        "ledger_state": "planned",
    }
    async with context.database.tenant(context.tenant.schema) as session:
        await keep_with_cost(session, context.execution, result, summary.usage)
        await executions.log(
            session,
            context.execution.id,
            "info",
            "digest written",
            lines=text.line_count,
            sha256=text.sha256,
            **text.counts,
        )
        await tell(
            session,
            f"{kind.transport}.digest.generated",
            Story.of(context.directive, params),
            sha256=text.sha256,
            line_count=text.line_count,
            counts=dict(text.counts),
            empty=text.empty,
        )
    return text
