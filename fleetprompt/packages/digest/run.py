"""One digest from its window to a message: collect, write, send, tell.

An attempt may die at any point and be followed by another. What was written is kept before anything
is sent, so that the next attempt sends the same; the ledger decides whether it may be sent
(research/mattermost_digest.md, traps 6, 17 to 21).

A transaction costs a digest more than what is done in it, so there are few: one reads everything, one
keeps the text and claims the message, one says that it is posted and ends the attempt.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text as sql
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.executions import service as executions
from fleetprompt.llm import Usage
from fleetprompt.packages.digest.collect import Collected, collect
from fleetprompt.packages.digest.config import DigestConfig
from fleetprompt.packages.digest.delivery_record import DeliveryRecord, delivery_record
from fleetprompt.packages.digest.kind import DigestKind
from fleetprompt.packages.digest.memory import Kept, bars, earlier, kept_before, kept_of, last_told
from fleetprompt.packages.digest.params import DigestParams
from fleetprompt.packages.digest.render import DigestText, render
from fleetprompt.packages.digest.story import Story, settle_slot, tell
from fleetprompt.packages.digest.summary import keep_with_cost, summarise
from fleetprompt.packages.digest.wording import Links
from fleetprompt.packages.models import Installation

_NAME = sql("SELECT name FROM fleetprompt.organizations WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Material:
    """What a digest is written from: its window's facts, and what earlier ones told."""

    kept: Sequence[Kept]
    delivered: DeliveryRecord
    collected: Collected


async def read_material(
    session: AsyncSession, context: HandlerContext, kind: DigestKind, params: DigestParams
) -> Material | None:
    """Read it in a tenant's transaction that has written nothing; None if an attempt kept its text."""
    if context.directive.attempt > 1:
        context.execution.result = (await executions.get(session, context.execution.id)).result
        if "text" in (context.execution.result or {}):
            return None
    window = params.window.as_window()
    kept = await kept_before(session, kind, params.installation_id, window.start)
    delivered = await delivery_record(session, params.installation_id, window.end)
    # Nothing was written in this transaction, so it does not hold the horizon.
    return Material(kept, delivered, await collect(session, window, earlier(params, kept)))


@dataclass(slots=True)
class Written:
    """A digest's text, which is to be kept before it is sent, or with the claim of its message."""

    text: DigestText
    context: HandlerContext
    kind: DigestKind
    params: DigestParams
    unkept: dict[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def told(self) -> dict[str, Any]:
        """What the directive's result says of it, however it ends."""
        return {"sha256": self.text.sha256, "line_count": self.text.line_count}

    async def keep(self, session: AsyncSession) -> None:
        """Keep it in the caller's transaction, unless it is kept; to be called in one attempt alone."""
        if self.unkept is None:
            return
        text, execution = self.text, self.context.execution
        await keep_with_cost(session, execution, self.unkept, self.usage)
        await executions.log(
            session,
            execution.id,
            "info",
            "digest written",
            lines=text.line_count,
            sha256=text.sha256,
            **text.counts,
        )
        await tell(
            session,
            f"{self.kind.transport}.digest.generated",
            Story.of(self.context.directive, self.params),
            sha256=text.sha256,
            line_count=text.line_count,
            counts=dict(text.counts),
            empty=text.empty,
        )
        self.unkept = None

    async def keep_now(self) -> None:
        """Keep it in a transaction of its own, unless it is kept."""
        if self.unkept is not None:
            async with self.context.database.tenant(self.context.tenant.schema) as session:
                await self.keep(session)

    async def succeed(self, session: AsyncSession, told: dict[str, Any]) -> None:
        """End the attempt in the transaction that makes the message posted."""
        result = {**self.told, **told}
        execution = self.context.execution
        execution.result = {**(execution.result or {}), **result}
        await self.context.succeed(session, result)


Send = Callable[[Written], Awaitable[dict[str, Any]]]


async def skip_paused(
    session: AsyncSession, params: DigestParams, installation: Installation
) -> dict[str, Any]:
    """The result of a digest that fell due while its installation could not send."""
    await settle_slot(session, params, "skipped_paused")
    return {"ledger_state": "skipped", "reason": f"the installation is {installation.state}"}


async def send_digest(
    context: HandlerContext,
    kind: DigestKind,
    params: DigestParams,
    config: DigestConfig,
    material: Material | None,
    send: Send,
) -> dict[str, Any]:
    """Write the digest of the params' window and have it sent; the result tells the ledger's state."""
    if material is None:
        text = DigestText.from_json(await kept_so_far(context))
        written = Written(text, context, kind, params)
    else:
        written = await _write(context, kind, params, config, material)
        if written.usage != Usage():
            # A language model's answer is paid for, and another would read differently.
            await written.keep_now()
    told = written.told
    if written.text.empty and config.empty_window == "skip":
        async with context.database.tenant(context.tenant.schema) as session:
            await written.keep(session)
            await settle_slot(session, params, "done")
        told["ledger_state"] = "skipped_empty"
    else:
        try:
            told |= await send(written)
        except DirectiveFailed:
            await written.keep_now()
            raise
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
    rows = await context.database.statement(_NAME, {"id": context.tenant.id})
    return (rows[0].name if rows else None) or context.tenant.slug


async def _write(
    context: HandlerContext,
    kind: DigestKind,
    params: DigestParams,
    config: DigestConfig,
    material: Material,
) -> Written:
    window = params.window.as_window()
    kept, collected = material.kept, material.collected
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
        material.delivered,
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
    context.execution.result = result
    return Written(text, context, kind, params, result, summary.usage)
