"""One digest from its window to a post: collect, render, enter in the ledger, post, tell.

An attempt may die at any point and be followed by another. What was collected is kept before
anything is sent, so the next attempt has the same text; the ledger decides whether it may be sent
(research/mattermost_digest.md, traps 6, 17 to 21).
"""

import asyncio
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.errors import DatabaseUnavailableError, NotFoundError, OverloadedError
from fleetprompt.executions.models import Execution
from fleetprompt.outbound import ledger
from fleetprompt.outbound.transports.mattermost import (
    WebhookMessage,
    WebhookUrl,
    parse_webhook_url,
    post_webhook,
)
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.collect import Cut, Previous, collect
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config
from fleetprompt.packages.mattermost_daily_ops_digest.facts import Totals
from fleetprompt.packages.mattermost_daily_ops_digest.record import (
    PROVIDER,
    Digest,
    record,
    settle_slot,
    tell,
)
from fleetprompt.packages.mattermost_daily_ops_digest.render import DigestText, render
from fleetprompt.packages.mattermost_daily_ops_digest.requests import RUN, DigestParams
from fleetprompt.packages.mattermost_daily_ops_digest.wording import Links
from fleetprompt.packages.service import INSTALLED, get_installation
from fleetprompt.schedules.local_time import Window
from fleetprompt.tenants.models import Organization
from fleetprompt.vault.cipher import SealError
from fleetprompt.vault.service import get_credential

# Pauses in seconds while the database is away between a post and its entry in the ledger.
_PAUSES = (0.2, 1.0, 3.0, 10.0)


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
        destination = await _destination(session, config)
    text = await _written(context, params, config)
    digest = Digest(params, config, text, destination, params.dedupe_key(context.tenant))
    if text.empty and config.empty_window == "skip":
        async with context.database.tenant(context.tenant.schema) as session:
            await settle_slot(session, params, "done")
        return await _ended(context, digest, "skipped_empty")
    url = await _webhook(context, config)
    lease = await _claimed(context, digest)
    if lease is not None:
        await _send(context, digest, url, lease)
    return await _ended(context, digest, "posted")


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
            context.directive,
            params,
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


async def _destination(session: AsyncSession, config: Config) -> str:
    """Server and channel, as people may see them."""
    if config.mattermost_credential_id is None:
        raise DirectiveFailed(
            "validation", "Mattermost is not connected: paste the incoming webhook's URL."
        )
    try:
        credential = await get_credential(session, config.mattermost_credential_id)
    except NotFoundError:
        raise DirectiveFailed(
            "auth", "The Mattermost connection was removed. Connect Mattermost again."
        ) from None
    return f"{credential.label}#{config.channel or 'default'}"


async def _webhook(context: HandlerContext, config: Config) -> WebhookUrl:
    assert config.mattermost_credential_id is not None  # noqa: S101 - _destination has checked
    try:
        secret = await context.vault.open_credential(
            context.tenant, config.mattermost_credential_id
        )
    except (SealError, NotFoundError) as error:
        raise DirectiveFailed(
            "auth", f"The stored webhook cannot be used: {error.detail} Connect Mattermost again."
        ) from None
    return parse_webhook_url(secret.reveal(), allow_plain_http=context.settings.allow_plain_http)


async def _claimed(context: HandlerContext, digest: Digest) -> ledger.Lease | None:
    """The right to send, or None if it was posted before; raises if it must not be sent now."""
    async with context.database.tenant(context.tenant.schema) as session:
        entry = await ledger.plan_and_claim(
            session,
            ledger.Intent(
                dedupe_key=digest.dedupe_key,
                provider=PROVIDER,
                destination=digest.destination,
                content_sha256=digest.text.sha256,
                correlation_id=context.directive.correlation_id,
                directive_id=context.directive.id,
                execution_id=context.execution.id,
            ),
        )
    if entry.lease is not None or entry.state == "posted":
        return entry.lease
    message = entry.error_message or f"the message is {entry.state}"
    match entry.state:
        case "unknown":
            raise OutcomeUnknown(message, error_kind=_kind(entry.error_kind))
        case "rejected":
            raise DirectiveFailed(_kind(entry.error_kind), message)
        case "retryable":
            raise DirectiveFailed(_kind(entry.error_kind), message, retry_after=entry.wait)
    raise DirectiveFailed(
        "network", "Another attempt is sending this digest.", retry_after=entry.wait + 1
    )


async def _send(
    context: HandlerContext, digest: Digest, url: WebhookUrl, lease: ledger.Lease
) -> None:
    """Post and record what became of it; raises unless it was posted."""
    message = WebhookMessage(
        text=digest.text.text,
        channel=digest.config.channel,
        username=digest.config.post_as_username,
        icon_url=digest.config.post_icon_url,
        props={"fleetprompt": {"key": digest.dedupe_key}},
    )
    async with context.database.tenant(context.tenant.schema) as session:
        await ledger.begin_sending(session, lease)
    outcome = await post_webhook(context.http, url, message)
    for pause in (*_PAUSES, None):
        try:
            async with context.database.tenant(context.tenant.schema) as session:
                await record(session, context, digest, lease, outcome)
            break
        except (DatabaseUnavailableError, OverloadedError):
            if pause is None:
                raise
            await asyncio.sleep(pause)
    if outcome.state == "posted":
        return
    await _keep_state(context, outcome.state)
    if outcome.state == "unknown":
        raise OutcomeUnknown(outcome.message, error_kind=outcome.error_kind or "unknown")
    raise DirectiveFailed(
        outcome.error_kind or "unknown", outcome.message, retry_after=outcome.retry_after_seconds
    )


async def _ended(context: HandlerContext, digest: Digest, ledger_state: str) -> dict[str, Any]:
    await _keep_state(context, ledger_state)
    return {
        "ledger_state": ledger_state,
        "destination": digest.destination,
        "sha256": digest.text.sha256,
        "line_count": digest.text.line_count,
    }


async def _keep_state(context: HandlerContext, ledger_state: str) -> None:
    await context.execution.keep({**(context.execution.result or {}), "ledger_state": ledger_state})


def _kind(stored: str | None) -> Any:
    return stored or "unknown"
