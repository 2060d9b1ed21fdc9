"""A written letter on its way: once, with its state kept in its execution."""

from hashlib import sha256
from typing import Any
from uuid import UUID

from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.outbound import ledger
from fleetprompt.outbound.delivery import Delivered, Delivery
from fleetprompt.outbound.ledger import Intent
from fleetprompt.packages.digest.run import keep_also, tenant_name
from fleetprompt.packages.digest.settling import require_installed
from fleetprompt.packages.digest.story import Story
from fleetprompt.packages.email_daily_digest import config as email_config
from fleetprompt.packages.email_daily_digest.config import Config
from fleetprompt.packages.email_daily_digest.connection import (
    DESTINATION,
    earlier_of,
    open_way,
)
from fleetprompt.packages.email_daily_digest.letters import TEST_TEXT, letter_of
from fleetprompt.packages.email_daily_digest.record import Sending
from fleetprompt.packages.email_daily_digest.requests import KIND, DigestParams, TestParams
from fleetprompt.packages.service import get_installation


async def send_once(
    context: HandlerContext, params: DigestParams | TestParams, config: Config
) -> dict[str, Any]:
    """Send the letter that the execution keeps, unless it was sent; the result tells of the ledger."""
    kept = await context.execution.kept() or {}
    key = params.dedupe_key(context.tenant)
    async with context.database.tenant(context.tenant.schema) as session:
        row = await ledger.find(session, key)
    letter = letter_of(kept, context.execution.id)
    only = params.to if isinstance(params, TestParams) else None
    way = await open_way(context, config, letter, row, only)
    intent = Intent(
        dedupe_key=key,
        provider=KIND.transport,
        destination=DESTINATION,
        content_sha256=kept["sha256"],
        correlation_id=context.directive.correlation_id,
        directive_id=context.directive.id,
        execution_id=context.execution.id,
    )
    sending = Sending(Story.of(context.directive, params), config, way, kept["sha256"])
    try:
        await deliver(context, intent, sending)
    except (DirectiveFailed, OutcomeUnknown):
        await _keep_state(context, key)
        raise
    return {"ledger_state": "posted", "transport": way.went_by, "recipients": way.recipients}


async def deliver(
    context: HandlerContext, intent: Intent, sending: Sending, *, word: UUID | None = None
) -> Delivered:
    """Deliver it; where Gmail certainly did not take it, once more by the mail server.

    The ledger knows of the refusal, so an attempt that dies between the two is taken up by another.
    """
    delivery = Delivery(
        context.database,
        context.tenant.schema,
        intent,
        sending.way,
        sending.posted,
        context.settings.absence_seconds,
        word=word,
    )
    try:
        return await delivery.deliver()
    except DirectiveFailed:
        if not sending.way.refused:
            raise
    async with context.database.tenant(context.tenant.schema) as session:
        sending.way.earlier = earlier_of(await ledger.find(session, intent.dedupe_key))
    sending.way.refused = False
    return await delivery.deliver()


async def _keep_state(context: HandlerContext, key: str) -> None:
    async with context.database.tenant(context.tenant.schema) as session:
        entry = await ledger.find(session, key)
    state = entry.state if entry else "planned"
    await keep_also(context, ledger_state=state)


async def send_test(context: HandlerContext, params: TestParams) -> dict[str, Any]:
    """Send the test's few words."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
    require_installed(installation)
    earlier = await context.execution.kept() or {}
    await context.execution.keep(
        {
            "text": TEST_TEXT,
            "sha256": sha256(TEST_TEXT.encode()).hexdigest(),
            "tenant": await tenant_name(context),
            "date": earlier.get("date") or context.clock().isoformat(),
            "ledger_state": "planned",
        }
    )
    told = await send_once(context, params, email_config.validate(installation.config))
    await keep_also(context, **told)
    return told
