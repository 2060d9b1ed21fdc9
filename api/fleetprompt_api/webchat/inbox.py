"""Conversations with visitors, for the team: listed, read, replied to, assigned, closed, escalated."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.tenants.key_service import Identity
from fleetprompt.tenants.members import get_member
from fleetprompt.webchat import drafts, inbox
from fleetprompt.webchat.inbox import Status
from fleetprompt.webchat.messages import PAGE, history
from fleetprompt.webchat.models import ChatConversation
from fleetprompt.webchat.telling import correlation_of
from fleetprompt.webchat.text import TEXT_LIMIT, checked_name, message_text
from fleetprompt.webchat.views import message_view
from fleetprompt_api.auth import Platform, WebchatRead, WebchatWrite, actor_of
from fleetprompt_api.idempotency import IdempotencyKey
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.asked import Asked, ask, asked
from fleetprompt_api.wire import Cursor, Limit, Links, Page, Text, Wire, page, read_cursor

routes = router("webchat")

_TEAM_NAME = "Support"


class ConversationView(Wire):
    """A conversation; `unread` messages are above what the team has read."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    site_id: UUID
    status: Status
    visitor_id: UUID
    visitor_name: str | None
    visitor_email: str | None
    identity: str | None
    language: str | None
    page_url: str | None
    agent: str | None
    assignee: str | None
    rating: int | None
    last_seq: int
    read_seq: int
    waiting_since: datetime | None
    inserted_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    unread: int = 0
    links: Links = Field(default_factory=dict)


class ThreadView(BaseModel):
    """A conversation with its messages above `after`, lowest first; `more` when there are others."""

    conversation: ConversationView
    messages: list[dict[str, Any]]
    more: bool
    visitor_typing: bool


class NewReply(BaseModel):
    """What the visitor shall read. `author` is the name to show; a person's own unless given."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[Text, Field(max_length=TEXT_LIMIT)]
    author: Annotated[Text | None, Field(max_length=100)] = None


class Read(BaseModel):
    """How far the team has read."""

    model_config = ConfigDict(extra="forbid")

    seq: Annotated[int, Field(ge=0, le=2**62)]


class Assignment(BaseModel):
    """Who takes care of it: a member of the tenant, or nobody."""

    model_config = ConfigDict(extra="forbid")

    user_id: UUID | None


@routes.get("/webchat/conversations")
async def list_webchat_conversations(
    request: Request,
    caller: WebchatRead,
    platform: Platform,
    site_id: UUID | None = None,
    status: Status | None = None,
    assignee: Annotated[Text | None, Query(max_length=100)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[ConversationView]:
    """Conversations, newest first."""
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await inbox.list_conversations(
            session, site_id=site_id, status=status, assignee=assignee, before=before, limit=limit
        )
    return page(request, found, limit, lambda one: one.id, _view)


@routes.get("/webchat/conversations/{conversation_id}")
async def read_webchat_conversation(
    conversation_id: UUID,
    caller: WebchatRead,
    platform: Platform,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> ThreadView:
    """A conversation with its messages."""
    schema = caller.tenant.schema
    async with platform.database.tenant(schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id)
        found = await history(session, conversation.id, after, PAGE)
    return ThreadView(
        conversation=_view(conversation),
        messages=[message_view(one) for one in found],
        more=bool(found) and found[-1].seq < conversation.last_seq,
        visitor_typing=platform.chat_live.visitor_is_typing(schema, conversation_id),
    )


@routes.post(
    "/webchat/conversations/{conversation_id}/replies", status_code=202, responses=problems(409)
)
async def reply_to_visitor(
    conversation_id: UUID,
    new: NewReply,
    caller: WebchatWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Asked:
    """Send a reply; asking again under one `Idempotency-Key` sends it once."""
    author = await name_shown(platform, caller) if new.author is None else checked_name(new.author)
    if author is None:
        raise InvalidError(errors=[{"pointer": "/author", "detail": "a name that can be read"}])
    params = {
        "conversation_id": str(conversation_id),
        "text": message_text(new.text),
        "author": author,
    }
    return await _ask(platform, caller, "webchat.reply_send", params, idempotency_key)


@routes.post("/webchat/conversations/{conversation_id}/typing", status_code=204)
async def type_to_visitor(conversation_id: UUID, caller: WebchatWrite, platform: Platform) -> None:
    """Show the visitor that somebody is typing; kept in memory only."""
    schema = caller.tenant.schema
    async with platform.database.tenant(schema) as session:
        await inbox.get_conversation(session, conversation_id)
    platform.chat_live.tell_typing(schema, conversation_id, "agent")


@routes.post("/webchat/conversations/{conversation_id}/read")
async def mark_conversation_read(
    conversation_id: UUID, read: Read, caller: WebchatWrite, platform: Platform
) -> ConversationView:
    """Note how far the team has read; it never goes back."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id, lock=True)
        await inbox.mark_read(session, conversation, read.seq)
    return _view(conversation)


@routes.put("/webchat/conversations/{conversation_id}/assignee")
async def assign_conversation(
    conversation_id: UUID, to: Assignment, caller: WebchatWrite, platform: Platform
) -> ConversationView:
    """Have a member, or nobody, take care of it."""
    assignee = None
    if to.user_id is not None:
        async with platform.database.platform() as session:
            try:
                await get_member(session, caller.tenant, to.user_id)
            except NotFoundError:
                errors = [{"pointer": "/user_id", "detail": "a member of this tenant"}]
                raise InvalidError(errors=errors) from None
        assignee = f"user:{to.user_id}"
    async with platform.database.tenant(caller.tenant.schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id, lock=True)
        await inbox.assign(session, conversation, assignee, by=caller.actor)
    return _view(conversation)


@routes.post(
    "/webchat/conversations/{conversation_id}/close", status_code=202, responses=problems(409)
)
async def close_webchat_conversation(
    conversation_id: UUID,
    caller: WebchatWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Asked:
    """End a conversation."""
    params = {"conversation_id": str(conversation_id)}
    return await _ask(platform, caller, "webchat.conversation.close", params, idempotency_key)


@routes.post(
    "/webchat/conversations/{conversation_id}/drafts", status_code=202, responses=problems(409)
)
async def draft_reply(conversation_id: UUID, caller: WebchatWrite, platform: Platform) -> Asked:
    """Have a language model draft a reply: in the directive's result, for people to read, never sent.

    Asked before about the same messages, that directive is answered unless it failed.
    """
    async with platform.database.tenant(caller.tenant.schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id)
        directive, _ = await drafts.request_draft(
            session, caller.tenant, conversation, actor_of(caller)
        )
        found = await asked(session, directive.id)
    await notify_directives(platform.database)
    return found


async def _ask(
    platform: AppState,
    caller: Identity,
    kind: str,
    params: dict[str, str],
    idempotency_key: str | None,
) -> Asked:
    conversation_id = UUID(params["conversation_id"])
    async with platform.database.tenant(caller.tenant.schema) as session:
        await inbox.get_conversation(session, conversation_id)
        found = await ask(
            session,
            caller,
            kind,
            params,
            idempotency_key,
            correlation_id=correlation_of(conversation_id),
        )
    await notify_directives(platform.database)
    return found


async def name_shown(platform: AppState, caller: Identity) -> str:
    """The caller's own name where a person asks under one, else the team's."""
    if caller.user_id is None:
        return _TEAM_NAME
    async with platform.database.platform() as session:
        member = await get_member(session, caller.tenant, caller.user_id)
    return checked_name(member.name) or _TEAM_NAME


def _view(conversation: ChatConversation) -> ConversationView:
    own = f"/api/v1/webchat/conversations/{conversation.id}"
    view = ConversationView.model_validate(conversation)
    view.unread = conversation.last_seq - conversation.read_seq
    view.links = {
        "self": own,
        "site": f"/api/v1/webchat/sites/{conversation.site_id}",
        "timeline": f"/api/v1/timeline/{correlation_of(conversation.id)}",
        "replies": f"{own}/replies",
        "close": f"{own}/close",
        "escalations": f"{own}/escalations",
        "drafts": f"{own}/drafts",
    }
    return view
