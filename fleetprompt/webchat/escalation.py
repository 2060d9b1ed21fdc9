"""Handing a conversation to the team: asked for once for each conversation and place, whoever asks.

What is told to the team by itself is settled with the conversation's first message and stands in its
signal, so that a replay of that signal asks for the same under the same keys.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.errors import ConflictError, InvalidError
from fleetprompt.outbound.transports.smtp import same_address
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.sites import Site
from fleetprompt.webchat.telling import correlation_of, tell
from fleetprompt.webchat.tenant_settings import tenant_chat

ESCALATE_TO_MATTERMOST = "webchat.escalate_to_mattermost"
ESCALATE_TO_EMAIL = "webchat.escalate_to_email"
# What `to` says in the signals of an escalation.
PLACES: Mapping[str, str] = {ESCALATE_TO_MATTERMOST: "mattermost", ESCALATE_TO_EMAIL: "email"}


@dataclass(frozen=True, slots=True)
class Escalation:
    """A conversation's way to one place: the directive that takes it there, and the key that is its once."""

    type: str
    key: str
    params: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As the signal of the first message holds it."""
        return asdict(self)


def mattermost_key(
    tenant: Tenant, conversation_id: UUID, installation_id: UUID, channel: str | None
) -> str:
    """The key under which a conversation is posted to one place once, whoever asks."""
    destination = f"{installation_id}#{channel or 'default'}"
    return f"webchat_mm_escalation:{tenant.slug}:{conversation_id}:{destination}"


def email_key(tenant: Tenant, conversation_id: UUID, address: str) -> str:
    """The key under which a conversation is mailed to one address once, however it goes."""
    return f"webchat_email_escalation:{tenant.slug}:{conversation_id}:{same_address(address)}"


def to_mattermost(
    tenant: Tenant, conversation_id: UUID, installation_id: UUID, channel: str | None
) -> Escalation:
    """To a channel by an installation's connection; ``channel`` None is the webhook's own."""
    return Escalation(
        ESCALATE_TO_MATTERMOST,
        mattermost_key(tenant, conversation_id, installation_id, channel),
        {
            "conversation_id": str(conversation_id),
            "installation_id": str(installation_id),
            "channel": channel,
        },
    )


def to_email(tenant: Tenant, conversation_id: UUID, address: str) -> Escalation:
    """To one of the addresses that the tenant's administrators have set."""
    return Escalation(
        ESCALATE_TO_EMAIL,
        email_key(tenant, conversation_id, address),
        {"conversation_id": str(conversation_id), "to": same_address(address)},
    )


async def escalate(
    session: AsyncSession,
    tenant: Tenant,
    conversation: ChatConversation,
    *,
    installation_id: UUID,
    channel: str | None,
    actor: Actor,
) -> tuple[Directive, bool]:
    """Ask for a conversation to be posted to a channel; the directive there is if it was asked before."""
    wanted = to_mattermost(tenant, conversation.id, installation_id, channel)
    return await ask(session, tenant, conversation, wanted, actor)


async def escalate_by_email(
    session: AsyncSession,
    tenant: Tenant,
    conversation: ChatConversation,
    *,
    address: str | None = None,
    actor: Actor,
) -> tuple[Directive, bool]:
    """Ask for a conversation to be mailed; the directive there is if it was asked before.

    ``address`` is one of those that administrators have set, the first of them unless given; any other is an
    InvalidError, and where none is set it is a ConflictError.
    """
    chat = await tenant_chat(session)
    known = {same_address(one): one for one in chat.settings.email_to}
    if not known:
        raise ConflictError(
            "No address for conversations is set. An administrator sets it in the package website_chat."
        )
    chosen = same_address(address or chat.settings.email_to[0])
    if chosen not in known:
        errors = [
            {"pointer": "/email", "detail": "one of the addresses that administrators have set"}
        ]
        raise InvalidError("Conversations are not mailed to this address.", errors=errors)
    return await ask(
        session, tenant, conversation, to_email(tenant, conversation.id, chosen), actor
    )


async def ask(
    session: AsyncSession,
    tenant: Tenant,
    conversation: ChatConversation,
    wanted: Escalation,
    actor: Actor,
    causation_id: str | None = None,
) -> tuple[Directive, bool]:
    """The directive of this escalation, and whether this call made it.

    What the team reads is written when it is sent, so that what was erased by then is in it no more.
    """
    # Looked for first, so that what another asked for under other terms is found and not refused.
    known = await session.scalar(select(Directive).where(Directive.idempotency_key == wanted.key))
    if known is not None:
        return known, False
    directive, made = await request_directive(
        session,
        tenant,
        wanted.type,
        wanted.params,
        idempotency_key=wanted.key,
        actor=actor,
        correlation_id=correlation_of(conversation.id),
        causation_id=causation_id,
    )
    if made:
        await tell_created(session, conversation, directive)
    return directive, made


async def tell_created(
    session: AsyncSession, conversation: ChatConversation, directive: Any
) -> None:
    """Tell that an escalation was asked for; told once, also of one that a replay asked for."""
    await tell(
        session,
        "escalation.created",
        conversation,
        {"directive_id": str(directive.id), "to": PLACES[directive.type], "by": directive.actor},
        dedupe_key=f"webchat_escalation_created:{directive.id}",
    )


def by_itself(site: Site, conversation_id: UUID) -> list[Escalation]:
    """Where the first message of each of the site's conversations goes without anybody asking."""
    found, chat = [], site.chat.settings
    if site.notify is not None:
        found.append(
            to_mattermost(
                site.tenant, conversation_id, site.notify.installation_id, site.notify.channel
            )
        )
    if chat.email_every_conversation and chat.email_to:
        found.append(to_email(site.tenant, conversation_id, chat.email_to[0]))
    return found


async def notify_team(
    session: AsyncSession,
    site: Site,
    conversation: ChatConversation,
    message: ChatMessage,
    escalations: list[Escalation],
) -> bool:
    """Ask for what goes out by itself with this message; whether anything was asked for now."""
    made = False
    for wanted in escalations:
        _, new = await ask(
            session, site.tenant, conversation, wanted, PLATFORM, f"signal:{message.signal_id}"
        )
        made = made or new
    return made
