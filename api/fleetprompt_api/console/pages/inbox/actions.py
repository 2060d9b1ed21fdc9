"""What people do about a conversation: reply, note as read, assign, escalate, close, erase."""

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fleetprompt.directives import service as directives
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import (
    ConflictError,
    IdempotencyMismatchError,
    InvalidError,
    MalformedError,
    NotFoundError,
)
from fleetprompt.packages.operations import Resolution
from fleetprompt.sessions.service import SignedIn
from fleetprompt.tenants.keys import Scope
from fleetprompt.tenants.members import get_member
from fleetprompt.webchat import drafts, erasure, escalation, inbox
from fleetprompt.webchat.escalation_resolving import RESOLVE, check_resolution
from fleetprompt.webchat.telling import correlation_of
from fleetprompt.webchat.text import message_text
from fleetprompt_api.auth import Platform, actor_of
from fleetprompt_api.console.forms import field, read_form
from fleetprompt_api.console.guard import INBOX, Visitor, page_router, problem_page
from fleetprompt_api.console.pages.inbox.conversation import RESOLUTIONS, show
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.inbox import name_shown

routes = page_router(INBOX)

_ONE = "/conversations/{conversation_id}"
_WOULD_REPLACE = (
    "A draft would take the place of what you have written. Empty the field first, or send it."
)


@routes.post(f"{_ONE}/reply")
async def reply(
    request: Request, conversation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Send a reply; a form that is sent twice sends it once."""
    _require(visitor)
    sent = await read_form(request)
    typed = field(sent, "text")
    try:
        params = {
            "text": message_text(typed),
            "author": await name_shown(platform, visitor.identity),
        }
        await _ask(platform, visitor, conversation_id, "webchat.reply_send", params, _key(sent))
    except (InvalidError, IdempotencyMismatchError, ConflictError) as error:
        return await show(platform, visitor, conversation_id, error=error, text=typed)
    return _to(conversation_id, "#reply")


@routes.post(f"{_ONE}/draft")
async def suggest(
    request: Request, conversation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Have a language model draft a reply, which the page then puts into the reply's field."""
    _require(visitor)
    typed = field(await read_form(request), "text")
    identity = visitor.identity
    try:
        if typed.strip():
            raise ConflictError(_WOULD_REPLACE)
        async with platform.database.tenant(identity.tenant.schema) as session:
            if not await drafts.drafts_offered(session, platform.settings):
                raise ConflictError(drafts.SWITCHED_OFF)
            conversation = await inbox.get_conversation(session, conversation_id)
            directive, _ = await drafts.request_draft(
                session, identity.tenant, conversation, actor_of(identity)
            )
    except ConflictError as error:
        return await show(platform, visitor, conversation_id, error=error, text=typed)
    await notify_directives(platform.database)
    platform.chat_live.tell(identity.tenant.schema, conversation_id)
    return _to(conversation_id, f"?draft={directive.id}#reply")


@routes.post(f"{_ONE}/typing", status_code=204)
async def typing(conversation_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """Show the visitor that somebody is typing; kept in memory only."""
    _require(visitor)
    schema = visitor.identity.tenant.schema
    async with platform.database.tenant(schema) as session:
        await inbox.get_conversation(session, conversation_id)
    platform.chat_live.tell_typing(schema, conversation_id, "agent")
    return Response(status_code=204)


@routes.post(f"{_ONE}/read")
async def mark_read(
    request: Request, conversation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Note that the team has read up to what the page showed."""
    _require(visitor)
    seq = field(await read_form(request), "seq")
    if not (seq.isascii() and seq.isdigit() and len(seq) < 16):
        raise MalformedError("The form names no message.")
    schema = visitor.identity.tenant.schema
    async with platform.database.tenant(schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id, lock=True)
        await inbox.mark_read(session, conversation, int(seq))
    platform.chat_live.tell(schema, conversation_id)
    return _to(conversation_id)


@routes.post(f"{_ONE}/assign")
async def assign(
    request: Request, conversation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Give it to a member, or to nobody."""
    _require(visitor)
    chosen = field(await read_form(request), "user_id")
    tenant = visitor.identity.tenant
    assignee = None
    if chosen:
        try:
            async with platform.database.platform() as session:
                member = await get_member(session, tenant, UUID(chosen))
        except (ValueError, NotFoundError):
            raise InvalidError("Choose a member of this tenant.") from None
        assignee = f"user:{member.user_id}"
    async with platform.database.tenant(tenant.schema) as session:
        conversation = await inbox.get_conversation(session, conversation_id, lock=True)
        await inbox.assign(session, conversation, assignee, by=visitor.identity.actor)
    platform.chat_live.tell(tenant.schema, conversation_id)
    return _to(conversation_id)


@routes.post(f"{_ONE}/escalate")
async def escalate(
    request: Request, conversation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Tell the team elsewhere. Asked before for the same place, the page shows what became of that."""
    _require(visitor)
    sent = await read_form(request)
    kind, _, place = field(sent, "to").partition(":")
    identity = visitor.identity
    actor = actor_of(identity)
    try:
        async with platform.database.tenant(identity.tenant.schema) as session:
            conversation = await inbox.get_conversation(session, conversation_id)
            if kind == "email":
                directive, made = await escalation.escalate_by_email(
                    session, identity.tenant, conversation, address=place, actor=actor
                )
            else:
                directive, made = await escalation.escalate(
                    session,
                    identity.tenant,
                    conversation,
                    installation_id=_id(place),
                    channel=sent.get("channel", "").strip() or None,
                    actor=actor,
                )
    except (InvalidError, ConflictError) as error:
        return await show(platform, visitor, conversation_id, error=error)
    await notify_directives(platform.database)
    platform.chat_live.tell(identity.tenant.schema, conversation_id)
    return _to(conversation_id, f"#directive-{directive.id}" if made else "#escalations")


@routes.post(f"{_ONE}/escalations/{{directive_id}}/resolve")
async def resolve(
    request: Request,
    conversation_id: UUID,
    directive_id: UUID,
    visitor: Visitor,
    platform: Platform,
) -> Response:
    """Send an escalation again that may not have arrived, or give it up."""
    _require(visitor)
    sent = await read_form(request)
    action, key = field(sent, "action"), _key(sent)
    if action not in RESOLUTIONS:
        raise MalformedError("The form names nothing that can be done.")
    try:
        async with platform.database.tenant(visitor.identity.tenant.schema) as session:
            conversation = await inbox.get_conversation(session, conversation_id)
            await check_resolution(session, conversation, directive_id, cast(Resolution, action))
        params = {"escalation_id": str(directive_id), "action": action}
        await _ask(platform, visitor, conversation_id, RESOLVE, params, key)
    except (ConflictError, IdempotencyMismatchError) as error:
        return await show(platform, visitor, conversation_id, error=error)
    return _to(conversation_id, "#escalations")


@routes.post(f"{_ONE}/close")
async def close(
    request: Request, conversation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """End the conversation."""
    _require(visitor)
    key = _key(await read_form(request))
    await _ask(platform, visitor, conversation_id, "webchat.conversation.close", {}, key)
    return _to(conversation_id)


@routes.post(f"{_ONE}/erase")
async def erase(
    request: Request, conversation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Forget the visitor: all conversations at this site, for good."""
    visitor.identity.require(Scope.WEBCHAT_WRITE, "admin")
    sent = await read_form(request)
    if sent.get("sure") != "yes":
        links = {"Back to the conversation": f"{INBOX}/conversations/{conversation_id}"}
        error = InvalidError("Nothing was erased. Say that you are sure.")
        return problem_page(request, error, title="Nothing was erased", links=links)
    schema = visitor.identity.tenant.schema
    async with platform.database.tenant(schema) as session:
        found = await inbox.get_conversation(session, conversation_id)
        erased = await erasure.erase_visitor(
            session,
            found.site_id,
            found.visitor_id,
            platform.clock(),
            by=visitor.identity.actor,
        )
    for one in erased:
        platform.chat_live.tell(schema, one)
    return _to(conversation_id)


def _require(visitor: SignedIn) -> None:
    visitor.identity.require(Scope.WEBCHAT_WRITE, "member")


def _key(sent: dict[str, str]) -> UUID:
    return _id(field(sent, "key"))


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise MalformedError("The form cannot be read.") from None


async def _ask(
    platform: AppState,
    visitor: SignedIn,
    conversation_id: UUID,
    kind: str,
    params: Mapping[str, Any],
    key: UUID,
) -> None:
    """Ask for a directive about the conversation, once under the form's key."""
    identity = visitor.identity
    async with platform.database.tenant(identity.tenant.schema) as session:
        await inbox.get_conversation(session, conversation_id)
        await directives.request_directive(
            session,
            identity.tenant,
            kind,
            {"conversation_id": str(conversation_id), **params},
            idempotency_key=f"form:{kind}:{identity.tenant.slug}:{conversation_id}:{key}",
            actor=actor_of(identity),
            correlation_id=correlation_of(conversation_id),
        )
    await notify_directives(platform.database)


def _to(conversation_id: UUID, place: str = "") -> Response:
    return RedirectResponse(f"{INBOX}/conversations/{conversation_id}{place}", 303)
