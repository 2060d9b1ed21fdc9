"""A written text on its way to Mattermost: once, with its state kept in its execution."""

from datetime import timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.outbound import ledger
from fleetprompt.outbound.delivery import Delivered, Delivery, Way
from fleetprompt.packages.digest.record import request_finish
from fleetprompt.packages.digest.run import Written, keep_also
from fleetprompt.packages.digest.settling import require_installed
from fleetprompt.packages.digest.story import Story
from fleetprompt.packages.mattermost_daily_ops_digest import config as digest_config
from fleetprompt.packages.mattermost_daily_ops_digest.connection import (
    destination_of,
    left_out,
    open_way,
    tell_left_out,
)
from fleetprompt.packages.mattermost_daily_ops_digest.record import Posting
from fleetprompt.packages.mattermost_daily_ops_digest.requests import KIND, TestPostParams
from fleetprompt.packages.service import get_installation

TEST_TEXT = (
    "**FleetPrompt** can post here. This is a test that somebody asked for; the daily digest comes at "
    "its time."
)


async def post_once(
    context: HandlerContext,
    posting: Posting,
    way: Way,
    dedupe_key: str,
    written: Written | None = None,
) -> dict[str, Any]:
    """Post it unless it is there; the result tells the ledger's state and where the post is.

    A digest that was ``written`` is kept with the claim of its message, and ends with its post.
    """
    intent = ledger.Intent(
        dedupe_key=dedupe_key,
        provider=KIND.transport,
        destination=posting.destination,
        content_sha256=posting.sha256,
        correlation_id=context.directive.correlation_id,
        directive_id=context.directive.id,
        execution_id=context.execution.id,
    )
    schema, patience = context.tenant.schema, context.settings.absence_seconds

    async def told(session: AsyncSession, delivered: Delivered) -> None:
        # What there is to say of a picture is said before the end.
        if written is not None and left_out(way) is None:
            await written.succeed(session, _told(posting, delivered))

    delivery = Delivery(
        context.database,
        schema,
        intent,
        way,
        posting.posted,
        patience,
        beside=written.keep if written else None,
        on_delivered=told,
    )
    try:
        delivered = await delivery.deliver()
    except (DirectiveFailed, OutcomeUnknown):
        await _keep_state(context, dedupe_key)
        raise
    await tell_left_out(context, way)
    if way.can_look and delivered.remote_id is None:
        async with context.database.tenant(schema) as session:
            await request_finish(
                session,
                KIND,
                context.tenant,
                posting.story.params.installation_id,
                delivered.message_id,
                after=timedelta(seconds=patience),
            )
    return _told(posting, delivered)


def _told(posting: Posting, delivered: Delivered) -> dict[str, Any]:
    return {
        "destination": posting.destination,
        "ledger_state": "posted",
        "remote_id": delivered.remote_id,
        "permalink": delivered.permalink,
    }


async def _keep_state(context: HandlerContext, dedupe_key: str) -> None:
    async with context.database.tenant(context.tenant.schema) as session:
        entry = await ledger.find(session, dedupe_key)
    await keep_also(context, ledger_state=entry.state if entry else "planned")


async def post_test(context: HandlerContext, params: TestPostParams) -> dict[str, Any]:
    """Post the test's one line."""
    async with context.database.tenant(context.tenant.schema) as session:
        installation = await get_installation(session, params.installation_id)
        require_installed(installation)
        config = digest_config.validate(installation.config)
        destination = await destination_of(session, config)
    text = TEST_TEXT
    digest = sha256(text.encode()).hexdigest()
    await context.execution.keep({"text": text, "sha256": digest, "ledger_state": "planned"})
    posting = Posting(Story.of(context.directive, params), config, destination, digest)
    way = await open_way(context, config, text, silent=False)
    told = await post_once(context, posting, way, params.dedupe_key(context.tenant))
    told |= {"sha256": digest}
    await context.execution.keep({"text": text, **told})
    return told
