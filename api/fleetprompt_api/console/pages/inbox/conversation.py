"""One conversation: what was said, and in between what was asked for and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from fleetprompt.directives.approvals.notices.setting import connection_of
from fleetprompt.directives.models import Directive
from fleetprompt.errors import FleetPromptError
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Resolution
from fleetprompt.packages.service import INSTALLED, list_installations
from fleetprompt.sessions.service import SignedIn
from fleetprompt.settings import Settings
from fleetprompt.signals.models import Signal
from fleetprompt.tenants.keys import Scope, at_least
from fleetprompt.tenants.members import list_members
from fleetprompt.webchat import inbox
from fleetprompt.webchat.drafts import drafts_offered
from fleetprompt.webchat.escalation_resolving import Escalated, escalated
from fleetprompt.webchat.messages import PAGE, history
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.registration import get_site
from fleetprompt.webchat.telling import correlation_of
from fleetprompt.webchat.tenant_settings import tenant_chat
from fleetprompt.webchat.text import TEXT_LIMIT
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import INBOX, LOOKING, Visitor, page_router
from fleetprompt_api.console.page import render
from fleetprompt_api.console.pages.inbox.draft import draft_of
from fleetprompt_api.console.people import People, people_in
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.inbox import name_shown

routes = page_router(INBOX)

_REPLY = "webchat.reply_send"
# What may be done about an escalation that may not have arrived, in words.
RESOLUTIONS: Mapping[Resolution, str] = {
    "post_again": "Send again (it may then be there twice)",
    "give_up": "Give up",
}


@dataclass(frozen=True, slots=True)
class Row:
    """Something of a conversation's story. ``told`` is text, ``pages`` where to read on."""

    id: str
    at: datetime
    kind: Literal["message", "reply", "event", "directive"]
    told: str
    who: str = ""
    own: bool = False
    state: str = ""
    pages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Story:
    """What is stored about a conversation; ``earlier`` messages come before those of this page."""

    conversation: ChatConversation
    site_name: str
    said: Sequence[ChatMessage]
    earlier: int
    signals: Sequence[Signal]
    directives: Sequence[Directive]
    escalations: Sequence[Escalated]
    installations: Sequence[Installation]
    addresses: Sequence[str]
    drafts_offered: bool


@routes.api_route("/conversations/{conversation_id}", methods=LOOKING)
async def read_conversation(
    conversation_id: UUID,
    visitor: Visitor,
    platform: Platform,
    before: int = 0,
    draft: UUID | None = None,
) -> Response:
    """The thread with everything that can be done about it; with a draft that was asked for."""
    return await show(platform, visitor, conversation_id, before=before, draft_id=draft)


async def show(
    platform: AppState,
    visitor: SignedIn,
    conversation_id: UUID,
    *,
    before: int = 0,
    draft_id: UUID | None = None,
    error: FleetPromptError | None = None,
    text: str = "",
) -> Response:
    """The page; with what could not be done, and what was typed or drafted."""
    identity = visitor.identity
    identity.require(Scope.WEBCHAT_READ)
    schema = identity.tenant.schema
    async with platform.database.tenant(schema) as session:
        story = await _story(session, platform.settings, conversation_id, before)
    conversation = story.conversation
    people = await people_in(platform.database, identity.tenant, _named(story))
    async with platform.database.platform() as session:
        members = [one for one in await list_members(session, identity.tenant) if one.active]
    may_write = Scope.WEBCHAT_WRITE in identity.scopes and at_least(identity.role, "member")
    drafted = draft_of(story.directives, draft_id, conversation) if may_write else None
    return render(
        "conversation.html",
        visitor=visitor,
        status=error.status if error else 200,
        here="Inbox",
        now=platform.clock(),
        story=story,
        rows=_rows(story, people, to_the_end=before <= 0),
        conversation=conversation,
        unread=conversation.last_seq - conversation.read_seq,
        typing=platform.chat_live.visitor_is_typing(schema, conversation_id),
        correlation_id=correlation_of(conversation_id),
        people=people,
        members=members,
        author=await name_shown(platform, identity) if may_write else "",
        may_write=may_write,
        may_erase=may_write and at_least(identity.role, "admin"),
        key=uuid4(),
        draft=drafted,
        draft_id=draft_id,
        text=text or (drafted.text if drafted else ""),
        choices=RESOLUTIONS,
        text_limit=TEXT_LIMIT,
        error=error,
    )


async def _story(
    session: AsyncSession, settings: Settings, conversation_id: UUID, before: int
) -> Story:
    conversation = await inbox.get_conversation(session, conversation_id)
    last = min(before - 1, conversation.last_seq) if before > 0 else conversation.last_seq
    first = max(0, last - PAGE)
    asked = await inbox.audit_directives(session, conversation)
    return Story(
        conversation=conversation,
        site_name=(await get_site(session, conversation.site_id)).name,
        said=await history(session, conversation.id, first, last - first) if last > first else (),
        earlier=first,
        signals=await inbox.audit_signals(session, conversation),
        directives=asked,
        escalations=await escalated(session, asked),
        installations=[
            one
            for one in await list_installations(session)
            if one.state in INSTALLED and await connection_of(session, one, None) is not None
        ],
        addresses=(await tenant_chat(session)).settings.email_to,
        drafts_offered=await drafts_offered(session, settings),
    )


def _named(story: Story) -> list[str | None]:
    said = [str(one.data.get(name, "")) for one in story.signals for name in ("by", "assignee")]
    return [story.conversation.assignee, *said, *(one.actor for one in story.directives)]


def _rows(story: Story, people: People, *, to_the_end: bool) -> list[Row]:
    """By time; of a part of a long thread, only what happened within it."""
    sent = {one.client_message_id for one in story.said if one.role != "visitor"}
    began = story.conversation.inserted_at
    rows = [
        *(_event(one, people, began) for one in story.signals),
        *(_message(one) for one in story.said),
        # A reply that arrived is its message; one that did not, or not yet, is told of.
        *(
            _directive(one, people)
            for one in story.directives
            if one.id not in sent and (one.type != _REPLY or one.state != "succeeded")
        ),
    ]
    since = story.said[0].inserted_at if story.said and story.earlier else None
    until = story.said[-1].inserted_at if story.said and not to_the_end else None
    return [
        one
        for one in sorted(rows, key=attrgetter("at"))
        if (since is None or one.at >= since) and (until is None or one.at <= until)
    ]


def _message(message: ChatMessage) -> Row:
    own = message.role != "visitor"
    return Row(
        id=f"message-{message.seq}",
        at=message.inserted_at,
        kind="message",
        told="" if message.content is None else message.content,
        who=message.author or "",
        own=own,
        state="erased" if message.content is None else "",
        pages={"signal": f"/console/signals/{message.signal_id}"},
    )


def _event(signal: Signal, people: People, began: datetime) -> Row:
    data = signal.data
    first = signal.type == "webchat.session.started"  # told of when it was stored, after it began
    pages = {"signal": f"/console/signals/{signal.id}"}
    if isinstance(data.get("directive_id"), str):
        pages["directive"] = f"/console/directives/{data['directive_id']}"
    link = data.get("permalink")
    if isinstance(link, str) and urlsplit(link).scheme in ("http", "https"):
        pages["post"] = link
    return Row(
        id=f"signal-{signal.id}",
        at=began if first else signal.occurred_at,
        kind="event",
        told=_in_words(signal.type, data, people),
        state="failed" if signal.type.endswith(".failed") else "",
        pages=pages,
    )


def _in_words(kind: str, data: dict[str, Any], people: People) -> str:
    by = people.name(data["by"]) if isinstance(data.get("by"), str) else ""
    match kind.removeprefix("webchat."):
        case "session.started":
            return f"Began on {data['page_url']}" if data.get("page_url") else "Began"
        case "session.ended":
            return f"Ended by the {by}" if by in ("visitor", "agent") else "Ended"
        case "session.rated":
            return f"Rated {data.get('rating', '?')} of 5"
        case "contact.captured":
            said = " ".join(str(data[one]) for one in ("name", "email") if data.get(one))
            return f"Left a contact: {said}" if said else "Left a contact"
        case "conversation.assigned":
            to = people.name(data["assignee"]) if data.get("assignee") else "nobody"
            return f"Given to {to}{f' by {by}' if by else ''}"
        case "conversation.erased":
            asked = f", asked for by {f'the {by}' if by == 'visitor' else by}" if by else ""
            return f"Erased: what was said and by whom is gone{asked}"
        case "escalation.created":
            return f"Escalated to {data.get('to', 'the team')}{f' by {by}' if by else ''}"
        case "escalation.notified":
            return f"The team was told: {data.get('destination') or data.get('to') or 'posted'}"
        case "escalation.failed":
            return f"The team was not told: {data.get('error_message') or data.get('error_kind') or ''}"
        case "escalation.given_up":
            return f"Given up{f' by {by}' if by else ''}: whether the team was told is not known"
        case "reply.generated":
            return "A draft of a reply was written"
        case other:
            return other


def _directive(directive: Directive, people: People) -> Row:
    error = f": {directive.error_message}" if directive.error_message else ""
    reply = directive.type == _REPLY
    words = str(directive.params.get("text", ""))
    return Row(
        id=f"directive-{directive.id}",
        at=directive.created_at,
        kind="reply" if reply else "directive",
        told=f"{words}"
        if reply
        else f"{directive.type} asked for by {people.name(directive.actor)}{error}",
        who=str(directive.params.get("author", "")) if reply else "",
        own=reply,
        state=directive.state,
        pages={"directive": f"/console/directives/{directive.id}"},
    )
