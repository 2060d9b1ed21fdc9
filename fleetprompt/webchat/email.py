"""The directive ``webchat.escalate_to_email``: one mail for each conversation and address.

By the tenant's own mail server it is submitted here, once (docs/decisions/mail-once.md: a mail server whose
last answer was lost leaves the mail ``unknown``). By a connector it becomes one ``email.send``, which people
approve; what the connector then tells of it ends the escalation (``settle_by_connector``).
"""

from dataclasses import dataclass
from hashlib import sha256
from html import escape
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, StringConstraints
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt import secrets
from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import DirectiveParams
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.outbound import ledger
from fleetprompt.outbound.delivery import Delivery
from fleetprompt.outbound.transports.gmail import MailWay
from fleetprompt.outbound.transports.smtp import (
    Audience,
    Letter,
    SmtpServer,
    same_address,
    unseal_smtp,
)
from fleetprompt.outbound.transports.smtp.letter import address
from fleetprompt.vault.cipher import SealError
from fleetprompt.webchat.escalation import ESCALATE_TO_EMAIL, email_key
from fleetprompt.webchat.escalation_outcomes import (
    conversation_link,
    first_words,
    tell_outcome,
)
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.personal_data import personal_data_at
from fleetprompt.webchat.registration import get_site
from fleetprompt.webchat.tenant_settings import ChatSettings, tenant_chat

SEND = "email.send"
SETTLE = "webchat.escalation_settle"
PROVIDER = "email"
_SHOWN = 2000  # characters of the first message
SENDING = ":send"  # the end of the key of an escalation's mail by a connector
_ASKED = text("SELECT 1 FROM directives WHERE idempotency_key = :key")


def _usable(given: str) -> str:
    address(given)
    return given


Address = Annotated[str, StringConstraints(max_length=254), AfterValidator(_usable)]


class EmailEscalationParams(DirectiveParams):
    """Which conversation, and to which of the addresses that administrators have set."""

    conversation_id: UUID
    to: Address


class SettleParams(DirectiveParams):
    """How a connector's mail for an escalation ended, as the connector told."""

    email_directive_id: UUID
    outcome: Literal["sent", "failed"]


@dataclass(frozen=True, slots=True)
class _Mail:
    subject: str
    text: str

    @property
    def html(self) -> str:
        """The text as a page; nothing that a visitor wrote is markup in it."""
        return f'<pre style="font:inherit;white-space:pre-wrap">{escape(self.text)}</pre>'


async def escalate_by_email(
    context: HandlerContext, params: EmailEscalationParams
) -> dict[str, Any]:
    """Mail the conversation unless it was."""
    return await mail_conversation(context, params, context.directive)


async def mail_conversation(
    context: HandlerContext,
    params: EmailEscalationParams,
    escalation: ClaimedDirective | Directive,
    word: UUID | None = None,
) -> dict[str, Any]:
    """Mail the conversation for its escalation's directive; ``word`` as in ``Delivery``.

    The mail is written now, from what the conversation holds.
    """
    async with context.database.tenant(context.tenant.schema) as session:
        conversation = await get_conversation(session, params.conversation_id)
        if conversation.status == "erased":
            return {"sent": False, "reason": "the conversation was erased"}
        chat = (await tenant_chat(session)).settings
        if same_address(params.to) not in {same_address(one) for one in chat.email_to}:
            raise DirectiveFailed(
                "validation", "The address is not among those that administrators have set."
            )
        site = await get_site(session, conversation.site_id)
        holding = (await personal_data_at(session, site)).notices
        first = await first_words(session, conversation) if holding.words else None
        who = None
        if holding.contact:
            who = conversation.visitor_name or conversation.visitor_email
        mail = _written(site.name, who, first, conversation_link(context, conversation))
        asked = None
        if await _way(session, context, params, chat) == "connector":
            asked = await _ask_connector(session, context, params, chat, mail)
    if asked is not None:
        await notify_directives(context.database)
        return {"sent": False, "email_directive_id": str(asked.id)}
    await _submit(context, params, chat, mail, escalation, word)
    return {"sent": True, "to": params.to}


async def _way(
    session: AsyncSession,
    context: HandlerContext,
    params: EmailEscalationParams,
    chat: ChatSettings,
) -> Literal["smtp", "connector"]:
    """As it was begun, else as it is set: a mail that may have gone one way never goes the other as well."""
    key = email_key(context.tenant, params.conversation_id, params.to)
    if await session.scalar(_ASKED, {"key": f"{key}{SENDING}"}):
        return "connector"
    return "smtp" if await ledger.find(session, key) is not None else chat.email_via


async def settle_by_connector(context: HandlerContext, params: SettleParams) -> dict[str, Any]:
    """End the escalation that a connector's mail belongs to; told once."""
    async with context.database.tenant(context.tenant.schema) as session:
        mail = await session.get(Directive, params.email_directive_id)
        escalation = None if mail is None else await _escalation_of(session, mail)
        if mail is None or escalation is None:
            # Somebody's own mail, told as part of the conversation's story.
            return {"escalation_id": None}
        if params.outcome == "sent":
            await tell_outcome(session, escalation, "notified", destination=escalation.params["to"])
        else:
            await tell_outcome(
                session,
                escalation,
                "failed",
                state="failed",
                error_kind=mail.error_kind or "unknown",
                error_message=mail.error_message or "The connector did not send the mail.",
            )
    return {"escalation_id": str(escalation.id), "outcome": params.outcome}


async def _escalation_of(session: AsyncSession, mail: Directive) -> Directive | None:
    """The escalation that asked for this mail; its key is the mail's without the end."""
    if mail.type != SEND or not mail.idempotency_key.endswith(SENDING):
        return None
    found: Directive | None = await session.scalar(
        select(Directive).where(
            Directive.type == ESCALATE_TO_EMAIL,
            Directive.idempotency_key == mail.idempotency_key.removesuffix(SENDING),
        )
    )
    return found


def _written(site: str, who: str | None, first: str | None, link: str) -> _Mail:
    name = " ".join(site.split())
    lines = [f"Somebody writes on {name}."]
    if first is not None:
        said = secrets.redact(first)
        shown = said if len(said) <= _SHOWN else f"{said[: _SHOWN - 1]}…"
        lines += ["", *([f"{who}:"] if who else []), *(f"> {line}" for line in shown.splitlines())]
    lines += ["", "Read and answer:", link, ""]
    return _Mail(f"Website chat: {name}"[:200], "\n".join(lines))


async def _ask_connector(
    session: AsyncSession,
    context: HandlerContext,
    params: EmailEscalationParams,
    chat: ChatSettings,
    mail: _Mail,
) -> Directive:
    """The one ``email.send`` of this escalation, as it was asked for first."""
    if chat.connector_id is None:
        raise DirectiveFailed("validation", "No connector is chosen that sends mail of the chat.")
    key = f"{email_key(context.tenant, params.conversation_id, params.to)}{SENDING}"
    known: Directive | None = await session.scalar(
        select(Directive).where(Directive.idempotency_key == key)
    )
    if known is not None:
        return known
    try:
        asked, _ = await request_directive(
            session,
            context.tenant,
            SEND,
            {"to": [params.to], "subject": mail.subject, "text_body": mail.text},
            idempotency_key=key,
            actor=PLATFORM,
            correlation_id=context.directive.correlation_id,
            causation_id=f"directive:{context.directive.id}",
            target=str(chat.connector_id),
        )
    except InvalidError as error:
        raise DirectiveFailed("validation", error.detail) from None
    return asked


async def _submit(
    context: HandlerContext,
    params: EmailEscalationParams,
    chat: ChatSettings,
    mail: _Mail,
    escalation: ClaimedDirective | Directive,
    word: UUID | None,
) -> None:
    server = await open_server(context, chat)
    letter = Letter(
        # One escalation's mails have one Message-ID, so that a mailbox can tell that the second is the first.
        token=escalation.id.hex,
        subject=mail.subject,
        text=mail.text,
        html=mail.html,
        date=context.clock(),
    )
    audience = Audience(chat.email_sender or chat.email_to[0], (params.to,))

    async def asked() -> Audience:
        return audience

    async def posted(session: AsyncSession) -> None:
        await tell_outcome(session, escalation, "notified", destination=params.to)

    intent = ledger.Intent(
        dedupe_key=email_key(context.tenant, params.conversation_id, params.to),
        provider=PROVIDER,
        destination=params.to,
        content_sha256=sha256(mail.text.encode()).hexdigest(),
        correlation_id=context.directive.correlation_id,
        directive_id=context.directive.id,
        execution_id=context.execution.id,
    )
    way = MailWay(context.http, letter, asked, None, server)
    patience = context.settings.absence_seconds
    schema = context.tenant.schema
    await Delivery(context.database, schema, intent, way, posted, patience, word).deliver()


async def open_server(context: HandlerContext, chat: ChatSettings) -> SmtpServer:
    """The tenant's mail server; DirectiveFailed where none can be used."""
    if chat.smtp_credential_id is None:
        raise DirectiveFailed(
            "validation", "No mail server is connected to the package website_chat."
        )
    try:
        sealed = await context.vault.open_credential(context.tenant, chat.smtp_credential_id)
        return unseal_smtp(sealed.reveal(), allow_plain=context.settings.allow_plain_http)
    except (SealError, NotFoundError, InvalidError) as error:
        raise DirectiveFailed(
            "auth", f"The stored mail server cannot be used: {error.detail} Connect it again."
        ) from None
