"""What the chat's package offers to the platform: answers to signals, its test, its connections, its end."""

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.types import DirectiveType
from fleetprompt.packages.website_chat.connections import ChatOperations
from fleetprompt.packages.website_chat.signals import SIGNAL_HANDLERS
from fleetprompt.packages.website_chat.trial import TEST, TestParams, test_chat
from fleetprompt.webchat.handlers import switch_off
from fleetprompt.webchat.registration import list_sites

OPERATIONS = ChatOperations()

signal_handlers = SIGNAL_HANDLERS


async def when_removed(session: AsyncSession, context: HandlerContext) -> None:
    """Switch every site off, so that no key of the tenant's is answered any more; what was said stays."""
    for site in await list_sites(session):
        await switch_off(session, context, site)


DIRECTIVE_TYPES = (
    DirectiveType(
        TEST,
        "Looks at every site of the chat, and posts one line where the team is told of conversations.",
        TestParams,
        test_chat,
        timeout=120.0,
    ),
)
