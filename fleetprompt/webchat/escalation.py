"""Handing a conversation to the team: asked for once for each conversation and place."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM, Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.sites import Site
from fleetprompt.webchat.telling import correlation_of, tell

ESCALATE_TO_MATTERMOST = "webchat.escalate_to_mattermost"


def mattermost_key(
    tenant: Tenant, conversation_id: UUID, installation_id: UUID, channel: str | None
) -> str:
    """The key under which a conversation is posted to one place once, whoever asks."""
    destination = f"{installation_id}#{channel or 'default'}"
    return f"webchat_mm_escalation:{tenant.slug}:{conversation_id}:{destination}"


async def escalate(
    session: AsyncSession,
    tenant: Tenant,
    conversation: ChatConversation,
    *,
    installation_id: UUID,
    channel: str | None,
    actor: Actor,
    causation_id: str | None = None,
) -> tuple[Directive, bool]:
    """Ask for a conversation to be posted to a channel; the directive there is if it was asked before.

    ``channel`` None is the webhook's own. The message is written when it is posted, so that what was
    erased by then is in it no more.
    """
    key = mattermost_key(tenant, conversation.id, installation_id, channel)
    # Looked for first, so that what another asked for under other terms is found and not refused.
    known = await session.scalar(select(Directive).where(Directive.idempotency_key == key))
    if known is not None:
        return known, False
    directive, made = await request_directive(
        session,
        tenant,
        ESCALATE_TO_MATTERMOST,
        {
            "conversation_id": str(conversation.id),
            "installation_id": str(installation_id),
            "channel": channel,
        },
        idempotency_key=key,
        actor=actor,
        correlation_id=correlation_of(conversation.id),
        causation_id=causation_id,
    )
    if made:
        await tell(
            session,
            "escalation.created",
            conversation,
            {"directive_id": str(directive.id), "to": "mattermost", "by": actor.id},
            dedupe_key=f"webchat_escalation_created:{directive.id}",
        )
    return directive, made


async def notify_team(
    session: AsyncSession, site: Site, conversation: ChatConversation, message: ChatMessage
) -> bool:
    """Post a conversation's first message where the site says so; whether that was asked for now."""
    notify = site.settings.notify
    if notify is None or message.seq != 1:
        return False
    _, made = await escalate(
        session,
        site.tenant,
        conversation,
        installation_id=notify.installation_id,
        channel=notify.channel,
        actor=PLATFORM,
        causation_id=f"signal:{message.signal_id}",
    )
    return made
