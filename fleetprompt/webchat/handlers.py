"""The chat's directives: what the team and the platform have done about sites and conversations.

Each handler makes its change and tells of it in one transaction, and finds its change made when it is
run again.
"""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Role
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.types import DirectiveParams, DirectiveType, RetryPolicy
from fleetprompt.errors import ConversationClosedError
from fleetprompt.ids import new_id
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.webchat import conversations, registration
from fleetprompt.webchat.drafts import GENERATE, GenerateParams, generate_reply
from fleetprompt.webchat.email import (
    SETTLE,
    EmailEscalationParams,
    SettleParams,
    escalate_by_email,
    settle_by_connector,
)
from fleetprompt.webchat.escalation import ESCALATE_TO_EMAIL, ESCALATE_TO_MATTERMOST
from fleetprompt.webchat.escalation_outcomes import escalation_failed
from fleetprompt.webchat.escalation_resolving import RESOLVE, ResolveParams, resolve_escalation
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.mattermost import EscalateParams, escalate
from fleetprompt.webchat.messages import add_message
from fleetprompt.webchat.models import ChatMessage, ChatSite
from fleetprompt.webchat.notices import Place, announce
from fleetprompt.webchat.origins import allowed_origin
from fleetprompt.webchat.personal_data import personal_data_at
from fleetprompt.webchat.site_secrets import Purpose
from fleetprompt.webchat.site_settings import Line, SiteSettings
from fleetprompt.webchat.telling import message_data, tell
from fleetprompt.webchat.tenant_settings import Mode, tenant_chat
from fleetprompt.webchat.text import TEXT_LIMIT, message_text

_TEAM: frozenset[Role] = frozenset({"owner", "admin", "member"})

Origin = Annotated[str, StringConstraints(max_length=300), AfterValidator(allowed_origin)]


class SiteParams(DirectiveParams):
    """Which site."""

    site_id: UUID


class RegisterParams(DirectiveParams):
    """A site as it shall be; ``site_id`` of one that is there, to change it or switch it on again.

    Without ``mode`` a site keeps its own, and a new one has the tenant's.
    """

    site_id: UUID | None = None
    name: Line
    origins: Annotated[list[Origin], Field(max_length=50)]
    mode: Mode | None = None
    settings: SiteSettings = SiteSettings()


class RotateParams(SiteParams):
    """Which of a site's secrets."""

    purpose: Purpose = "token"


class ConversationParams(DirectiveParams):
    """Which conversation."""

    conversation_id: UUID


class ReplyParams(ConversationParams):
    """What the visitor shall read, and who says it."""

    text: Annotated[str, StringConstraints(max_length=TEXT_LIMIT), AfterValidator(message_text)]
    author: Line


async def register_site(context: HandlerContext, params: RegisterParams) -> dict[str, Any]:
    """Make the site with a public key and secrets, or bring it up to date."""
    data_key = await context.vault.current_key(context.tenant)
    async with context.database.tenant(context.tenant.schema) as session:
        mode = params.mode
        if params.site_id is not None:
            known = await registration.get_site(session, params.site_id, lock=True)
            mode = mode or registration.mode_of(known)
        site, _ = await registration.register(
            session,
            context.tenant,
            data_key,
            site_id=params.site_id or context.directive.id,
            name=params.name,
            origins=params.origins,
            settings=params.settings,
            mode=mode or (await tenant_chat(session)).settings.mode,
        )
        await emit(session, _about_site(context, "registered", site.id))
    return {"site_id": str(site.id)}


async def rotate_secret(context: HandlerContext, params: RotateParams) -> dict[str, Any]:
    """Replace a secret; what the old one signed holds for what is left of its time."""
    data_key = await context.vault.current_key(context.tenant)
    async with context.database.tenant(context.tenant.schema) as session:
        await registration.rotate(
            session,
            context.tenant,
            data_key,
            params.site_id,
            params.purpose,
            context.clock(),
            secret_id=context.directive.id,
        )
        await emit(session, _about_site(context, "secret_rotated", params.site_id))
    return {"site_id": str(params.site_id), "purpose": params.purpose}


async def disable_site(context: HandlerContext, params: SiteParams) -> dict[str, Any]:
    """Switch a site off; its visitors are refused within a second, what they said stays."""
    async with context.database.tenant(context.tenant.schema) as session:
        await switch_off(session, context, await registration.get_site(session, params.site_id))
    return {"site_id": str(params.site_id), "status": "disabled"}


async def switch_off(session: AsyncSession, context: HandlerContext, site: ChatSite) -> None:
    """Refuse the site's key from now on, and tell of it once for each directive."""
    site.status = "disabled"
    await emit(session, _about_site(context, "disabled", site.id))


async def send_reply(context: HandlerContext, params: ReplyParams) -> dict[str, Any]:
    """Add the team's message under the directive's own id, so that it is there once."""
    async with context.database.tenant(context.tenant.schema) as session:
        conversation = await get_conversation(session, params.conversation_id, lock=True)
        message = await session.scalar(
            select(ChatMessage).where(
                ChatMessage.conversation_id == conversation.id,
                ChatMessage.client_message_id == context.directive.id,
            )
        )
        if message is None:
            if conversation.status != "open":
                raise ConversationClosedError
            site = await registration.get_site(session, conversation.site_id)
            signals = (await personal_data_at(session, site)).signals
            message = ChatMessage(
                id=new_id(),
                conversation_id=conversation.id,
                seq=conversation.last_seq + 1,
                role="agent",
                author=params.author,
                content=params.text,
                client_message_id=context.directive.id,
                context={},
                inserted_at=context.clock(),
            )
            message.signal_id = await tell(
                session,
                "reply.sent",
                conversation,
                {
                    **message_data(message, with_content=signals.words),
                    "author": params.author,
                },
                dedupe_key=f"webchat_reply:{context.directive.id}",
                causation_id=f"directive:{context.directive.id}",
            )
            add_message(session, conversation, message)
            conversation.agent, conversation.waiting_since = params.author, None
            conversation.read_seq = message.seq
    await announce(context.database, [Place(context.tenant.schema, params.conversation_id)])
    return {"conversation_id": str(params.conversation_id), "seq": message.seq}


async def close_conversation(context: HandlerContext, params: ConversationParams) -> dict[str, Any]:
    """End a conversation; one that is over stays so."""
    async with context.database.tenant(context.tenant.schema) as session:
        conversation = await get_conversation(session, params.conversation_id, lock=True)
        await conversations.close(
            session,
            conversation,
            by="agent",
            now=context.clock(),
            causation_id=f"directive:{context.directive.id}",
        )
    await announce(context.database, [Place(context.tenant.schema, params.conversation_id)])
    return {"conversation_id": str(params.conversation_id), "status": conversation.status}


def _about_site(context: HandlerContext, what: str, site_id: UUID) -> NewSignal:
    return NewSignal(
        type=f"webchat.site.{what}",
        source="webchat",
        subject_type="webchat.site",
        subject_id=str(site_id),
        correlation_id=context.directive.correlation_id,
        causation_id=f"directive:{context.directive.id}",
        dedupe_key=f"webchat_site:{context.directive.id}:{site_id}",
        data={"site_id": str(site_id)},
    )


DIRECTIVE_TYPES = (
    DirectiveType(
        "webchat.site.register",
        "Registers a website for the chat, or changes one that is registered.",
        RegisterParams,
        register_site,
    ),
    DirectiveType(
        "webchat.site.rotate_secret",
        "Replaces one of a site's secrets.",
        RotateParams,
        rotate_secret,
    ),
    DirectiveType(
        "webchat.site.disable", "Switches the chat of a site off.", SiteParams, disable_site
    ),
    DirectiveType(
        "webchat.reply_send",
        "Sends a reply to the visitor of a conversation.",
        ReplyParams,
        send_reply,
        roles=_TEAM,
    ),
    DirectiveType(
        "webchat.conversation.close",
        "Ends a conversation with a visitor.",
        ConversationParams,
        close_conversation,
        roles=_TEAM,
    ),
    DirectiveType(
        ESCALATE_TO_MATTERMOST,
        "Posts a conversation to a channel of the team, once for each place.",
        EscalateParams,
        escalate,
        roles=_TEAM,
        timeout=120.0,
        after_failure=escalation_failed,
    ),
    DirectiveType(
        ESCALATE_TO_EMAIL,
        "Mails a conversation to an address of the team, once for each address.",
        EmailEscalationParams,
        escalate_by_email,
        roles=_TEAM,
        timeout=180.0,
        after_failure=escalation_failed,
    ),
    DirectiveType(
        RESOLVE,
        "Sends an escalation again that may not have arrived, or gives it up, by a person's word.",
        ResolveParams,
        resolve_escalation,
        roles=_TEAM,
        timeout=180.0,
    ),
    DirectiveType(
        GENERATE,
        "Has a language model draft a reply, which is shown to the team and never sent by itself.",
        GenerateParams,
        generate_reply,
        roles=_TEAM,
        timeout=150.0,
        retry=RetryPolicy(max_attempts=2, first_bound=5.0, longest_bound=30.0),
    ),
    DirectiveType(
        SETTLE,
        "Ends an escalation by the word of the connector that mailed it; asked for by the platform alone.",
        SettleParams,
        settle_by_connector,
        roles=frozenset(),
    ),
)
