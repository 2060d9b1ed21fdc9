"""``/chat/{site_key}``: the chat as a page that works without script.

What it knows of its visitor is in its form's hidden fields and in no address, cookie or storage; nothing
is stored on the server before the first message is sent. A form that is sent twice is stored once.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID, uuid4

from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import (
    ChallengeRequiredError,
    ConsentRequiredError,
    ConsentStaleError,
    FleetPromptError,
    InvalidError,
    MalformedError,
    NotFoundError,
    RateLimitedError,
    SiteDisabledError,
    VisitorExpiredError,
)
from fleetprompt.webchat import access, captcha, conversations, erasure, messages, visitors
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.conversations import Arrival, Contact
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.site_settings import Language, Theme
from fleetprompt.webchat.sites import Site
from fleetprompt.webchat.text import checked_email, checked_name, message_text
from fleetprompt_api.addresses import address_of
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.forms import field, read_form
from fleetprompt_api.problems import retry_headers
from fleetprompt_api.session_cookie import check_same_origin
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.plain_page import CAPTCHA_FIELDS, draw
from fleetprompt_api.webchat.plain_words import WORDS, Words, wanted_language

routes = APIRouter(prefix="/chat", include_in_schema=False)

_ADDRESS = "/{site_key}"
# How long a form may be thought about is bounded by the visitor's secret alone.
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a form sent; ``visitor`` is the secret."""

    visitor: str
    client_message_id: UUID
    text: str
    consent: str | None
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is shown of a form's effect. ``done``: what was typed is; ``over``: so is the visitor.

    ``ask_captcha``: the tenant's CAPTCHA would let it through.
    """

    told: str = ""
    status: int = 200
    done: bool = True
    over: bool = False
    ask_captcha: bool = False
    retry: dict[str, str] | None = None


@routes.api_route(_ADDRESS, methods=["GET", "HEAD"])
async def read_plain_chat(site_key: str, request: Request, platform: Platform) -> Response:
    """The page as somebody new sees it; nothing is stored."""
    language = wanted_language(request.headers.get("accept-language", ""))
    try:
        site = await _site(platform, site_key)
        async with platform.database.tenant(site.tenant.schema) as session:
            address = address_of(request, platform)
            await access.admit_bootstrap(session, site, address, platform.clock())
    except FleetPromptError as error:
        return _refused(language, error)
    visitor = visitors.new_visitor(site.visitor_secret, platform.clock())
    return await _page(platform, site, language, _blank(visitor), Outcome())


@routes.post(_ADDRESS)
async def send_plain_chat(site_key: str, request: Request, platform: Platform) -> Response:
    """Do what the form asks for and show the conversation."""
    language = wanted_language(request.headers.get("accept-language", ""))
    try:
        check_same_origin(request, platform.settings)
        site = await _site(platform, site_key)
        fields = await read_form(request)
        sent = _sent(fields)
    except FleetPromptError as error:
        return _refused(language, error)
    words = WORDS[language or site.settings.language]
    try:
        guest = await _guest(request, platform, site, sent, fields)
        outcome = await _act(platform, guest, sent, fields.get("do", "send"), words, language)
    except FleetPromptError as error:
        outcome = _told(error, words)
    if outcome.over:
        visitor = visitors.new_visitor(site.visitor_secret, platform.clock())
        sent = replace(sent, visitor=visitor)
    form = _blank(sent.visitor) if outcome.done else sent
    return await _page(platform, site, language, form, outcome)


async def _site(platform: AppState, site_key: str) -> Site:
    site = await platform.chat_sites.find(site_key)
    # A site that may be used from nowhere is not open by this door either.
    if not site.active or not site.origins:
        raise SiteDisabledError
    return site


def _sent(fields: dict[str, str]) -> Sent:
    try:
        client_message_id = UUID(field(fields, "client_message_id"))
    except ValueError:
        raise MalformedError("The form names no message.") from None
    return Sent(
        visitor=field(fields, "visitor"),
        client_message_id=client_message_id,
        text=field(fields, "text"),
        consent=fields.get("consent"),
        name=fields.get("name", ""),
        email=fields.get("email", ""),
    )


def _blank(visitor: str) -> Sent:
    return Sent(visitor, uuid4(), "", None, "", "")


async def _guest(
    request: Request, platform: AppState, site: Site, sent: Sent, fields: dict[str, str]
) -> Guest:
    now = platform.clock()
    answer = next((fields[name] for name in CAPTCHA_FIELDS if fields.get(name)), None)
    guest = Guest(
        site=site,
        visitor_id=visitors.visitor_id(site.visitor_secret, sent.visitor, now),
        address=address_of(request, platform),
        user_agent=request.headers.get("user-agent", "")[:512],
        expires_at=int((now + _HOUR).timestamp()),
        now=now,
        answer=answer and f"{captcha.PREFIX}{answer}",
    )
    return await captcha.vouched(guest, platform.outbound, platform.vault, platform.settings)


async def _act(
    platform: AppState, guest: Guest, sent: Sent, what: str, words: Words, language: Language | None
) -> Outcome:
    schema = guest.site.tenant.schema
    if what == "erase":
        async with platform.database.tenant(schema) as session:
            erased = await erasure.erase_visitor(
                session, guest.site.id, guest.visitor_id, guest.now, by="visitor"
            )
            await guest.admit_change(session)  # behind the conversations' locks, like every change
        for conversation_id in erased:
            platform.chat_live.tell(schema, conversation_id)
        return Outcome(words.erased, over=True)
    if what == "end":
        async with platform.database.tenant(schema) as session:
            found = await conversations.latest(session, guest.site, guest.visitor_id, guest.now)
            if found is not None:
                found = await conversations.own_conversation(session, guest, found.id, lock=True)
                await conversations.close(session, found, by="visitor", now=guest.now)
        if found is not None:
            platform.chat_live.tell(schema, found.id)
        return Outcome()
    if what == "look":
        return Outcome(done=not sent.text)
    async with platform.database.tenant(schema) as session:
        received = await _receive(session, guest, sent, language)
    platform.chat_live.tell(schema, received.message.conversation_id)
    if received.asked:
        await notify_directives(platform.database)
    return Outcome()


async def _receive(
    session: AsyncSession, guest: Guest, sent: Sent, language: Language | None
) -> messages.Received:
    """Store the form's message, in a conversation that is made for it where none is open."""
    stored = await session.scalar(
        select(ChatMessage)
        .join(ChatConversation, ChatConversation.id == ChatMessage.conversation_id)
        .where(
            ChatConversation.site_id == guest.site.id,
            ChatConversation.visitor_id == guest.visitor_id,
            ChatMessage.client_message_id == sent.client_message_id,
        )
    )
    if stored is not None:
        return messages.Received(stored, duplicate=True)
    text = message_text(sent.text)
    contact = Contact(checked_name(sent.name), checked_email(sent.email))
    known = await conversations.latest(session, guest.site, guest.visitor_id, guest.now)
    if known is None or known.status != "open":
        _check_asked(guest.site, contact)
    arrival = Arrival(consent=sent.consent, contact=contact, language=language)
    conversation, _ = await conversations.open_conversation(session, guest, arrival)
    return await messages.receive(session, guest, conversation.id, sent.client_message_id, text)


def _check_asked(site: Site, contact: Contact) -> None:
    """What the site wants to know before the first message."""
    wanted = site.settings.prechat
    missing = [
        name
        for name, asked, given in (
            ("name", wanted.name, contact.name),
            ("email", wanted.email, contact.email),
        )
        if asked == "required" and given is None
    ]
    if missing:
        raise InvalidError(errors=[{"pointer": f"/{name}", "detail": ""} for name in missing])


def _told(error: FleetPromptError, words: Words) -> Outcome:
    """A refusal in the visitor's words; what was typed stays in the form."""
    fields = {"text": words.write, "name": words.name, "email": words.email}
    match error:
        case ConsentRequiredError():
            told = words.consent_needed
        case ConsentStaleError():
            told = words.consent_changed
        case RateLimitedError():
            told = words.wait.format(retry_headers(error).get("Retry-After", "60"))
        case ChallengeRequiredError():
            told = words.busy
        case VisitorExpiredError():
            told = words.expired
        case InvalidError():
            places = [place["pointer"].strip("/") for place in error.errors]
            told = f"{words.wrong} {', '.join(fields.get(place, place) for place in places)}"
        case _:
            told = words.failed
    return Outcome(
        told,
        error.status,
        done=False,
        over=isinstance(error, VisitorExpiredError),
        ask_captcha=isinstance(error, ChallengeRequiredError),
        retry=retry_headers(error),
    )


def _refused(language: Language | None, error: FleetPromptError) -> Response:
    """No chat at all, in the language of the browser."""
    status = 404 if isinstance(error, NotFoundError) else error.status
    chosen: Language = language or "en"
    answer = draw(chosen, Theme(), status, title=WORDS[chosen].unavailable, site=None)
    answer.headers.update(retry_headers(error))
    return answer


async def _page(
    platform: AppState, site: Site, language: Language | None, form: Sent, outcome: Outcome
) -> Response:
    now = platform.clock()
    visitor_id = visitors.visitor_id(site.visitor_secret, form.visitor, now)
    said: list[ChatMessage] = []
    async with platform.database.tenant(site.tenant.schema) as session:
        found = await conversations.latest(session, site, visitor_id, now)
        if found is not None:
            before = max(0, found.last_seq - messages.PAGE)
            said = list(await messages.history(session, found.id, before))
    chosen = language or site.settings.language
    view = site.view(chosen, now)
    going_on = found is not None and found.status == "open"
    consent = site.settings.consent
    answer = draw(
        chosen,
        site.settings.theme,
        outcome.status,
        captcha=captcha.offered(site) if outcome.ask_captcha else None,
        title=view["title"],
        site=view,
        conversation=found,
        messages=said,
        told=outcome.told,
        visitor=form.visitor,
        client_message_id=form.client_message_id,
        text=form.text,
        given_name=form.name,
        given_email=form.email,
        ask_contact=not going_on or (site.settings.ask_contact and not _email_of(found)),
        ask_consent=consent is not None
        and (found is None or not going_on or found.consent_version != consent.version),
    )
    answer.headers.update(outcome.retry or {})
    return answer


def _email_of(conversation: ChatConversation | None) -> str | None:
    return conversation.visitor_email if conversation else None
