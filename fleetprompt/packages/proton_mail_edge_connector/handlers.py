"""What the package offers to the platform: sending a mail by a connector.

What connectors say of themselves is kept by the database (docs/decisions/connectors.md), so that no signal
of theirs asks for a directive.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.connectors import service as connectors
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.types import DirectiveType, RetryPolicy
from fleetprompt.packages.proton_mail_edge_connector.mail import EmailParams

signal_handlers: Mapping[str, Any] = {}


async def when_removed(session: AsyncSession, context: HandlerContext) -> None:
    """Revoke every connector: no key and no code of theirs outlives the package."""
    who = Actor(context.directive.actor, "platform")
    await connectors.revoke_all(session, context.database, context.tenant, who)


DIRECTIVE_TYPES = (
    DirectiveType(
        "email.send",
        "Sends one mail from the customer's own account, through the connector beside it.",
        EmailParams,
        roles=frozenset({"owner", "admin", "member"}),
        target="connector",
        timeout=300.0,
        retry=RetryPolicy(max_attempts=6, first_bound=30.0, longest_bound=1800.0),
        approval=ApprovalPolicy(expires_after_seconds=24 * 3600),
        over_http=True,
    ),
)
