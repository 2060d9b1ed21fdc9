"""The directive ``operations.alert``: one message to the operators' own Mattermost, posted once.

It goes where the operations tenant's digest goes. Without such a connection nothing is posted, and the
directive's result says so: the alert is then in Dagster and in the tenant's signals alone.
"""

from typing import Any

from pydantic import Field
from sqlalchemy import select

from fleetprompt.directives.approvals.notices.posting import Letter, lease_of, open_webhook, post
from fleetprompt.directives.approvals.notices.setting import Connection, connection_of
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.types import DirectiveParams, DirectiveType
from fleetprompt.outbound import ledger
from fleetprompt.packages.models import Installation
from fleetprompt.signals.emit import NewSignal

ALERT = "operations.alert"


class AlertParams(DirectiveParams):
    """What is wrong, in Markdown, and about what."""

    subject: str = Field(max_length=200)
    text: str = Field(max_length=3000)


async def alert(context: HandlerContext, params: AlertParams) -> dict[str, Any]:
    """Post it unless nobody wants it; the result says whether it was."""
    connection = await _connection(context)
    if connection is None:
        return {"posted": False, "reason": "the operations tenant posts nowhere"}
    letter = Letter(
        dedupe_key=f"operations_alert:{context.directive.id}",
        text=params.text,
        channel=None,
        credential_id=connection.credential_id,
        destination=connection.destination,
    )
    url = await open_webhook(context, letter)
    async with context.database.tenant(context.tenant.schema) as session:
        lease = lease_of(await ledger.plan_and_claim(session, letter.intent(context)))
    if lease is not None:
        told = NewSignal(
            type="operations.alerted",
            subject_type="alert",
            subject_id=params.subject,
            correlation_id=context.directive.correlation_id,
            causation_id=f"directive:{context.directive.id}",
            dedupe_key=f"operations.alerted:{context.directive.id}",
            data={"destination": letter.destination, "sha256": letter.sha256},
        )
        await post(context, letter, url, lease, told)
    return {"posted": True, "destination": letter.destination}


async def _connection(context: HandlerContext) -> Connection | None:
    async with context.database.tenant(context.tenant.schema) as session:
        for installation in await session.scalars(select(Installation).order_by(Installation.id)):
            found = await connection_of(session, installation, None)
            if found is not None:
                return found
    return None


DIRECTIVE_TYPES = (
    DirectiveType(
        ALERT,
        "Tells the platform's operators in Mattermost that something is wrong, or well again.",
        AlertParams,
        alert,
        timeout=120.0,
    ),
)
