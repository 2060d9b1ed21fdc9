"""Messages up, and down by long poll where a stream does not get through."""

import time
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from fleetprompt.directives.wake import notify_directives
from fleetprompt.webchat import conversations, messages
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.text import message_text
from fleetprompt.webchat.views import conversation_view, message_view
from fleetprompt_api.auth import Platform
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.following import wait_for_news
from fleetprompt_api.webchat.guests import GuestRoute, TheGuest, router

routes = router(GuestRoute)

LONGEST_WAIT = 25  # seconds


class NewMessage(BaseModel):
    """One message; ``client_message_id`` is made once for each that is written."""

    conversation_id: UUID
    client_message_id: UUID
    text: Annotated[str, Field(max_length=20_000)]


@routes.post("/messages")
async def post_message(
    new: NewMessage, guest: TheGuest, platform: Platform, response: Response
) -> dict[str, Any]:
    """Store one message; sending it again finds it stored."""
    text = message_text(new.text)
    schema = guest.site.tenant.schema
    async with platform.database.tenant(schema) as session:
        received = await messages.receive(
            session, guest, new.conversation_id, new.client_message_id, text
        )
    if not received.duplicate:
        platform.chat_live.tell(schema, new.conversation_id)
        response.status_code = 201
    if received.asked:
        await notify_directives(platform.database)
    return {"message": message_view(received.message), "duplicate": received.duplicate}


@routes.get("/messages")
async def read_messages(
    guest: TheGuest,
    platform: Platform,
    conversation_id: UUID,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0,
    status: Literal["open", "closed", "erased"] | None = None,
) -> dict[str, Any]:
    """What is above ``after``; with ``wait``, not before there is something or the time is over."""
    live, schema = platform.chat_live, guest.site.tenant.schema
    if wait:
        live.check_room(schema, conversation_id)
    until = time.monotonic() + wait
    with live.follow(schema, conversation_id, after) as follower:
        while True:
            conversation, found = await _read(platform, guest, conversation_id, after)
            left = until - time.monotonic()
            changed = status is not None and status != conversation.status
            if found or changed or left <= 0 or platform.closing.is_set():
                return {
                    "conversation": conversation_view(conversation),
                    "messages": [message_view(one) for one in found],
                    "more": bool(found) and found[-1].seq < conversation.last_seq,
                }
            await wait_for_news(platform, follower, left)


async def _read(
    platform: AppState, guest: Guest, conversation_id: UUID, after: int
) -> tuple[ChatConversation, list[ChatMessage]]:
    async with platform.database.tenant(guest.site.tenant.schema) as session:
        conversation = await conversations.own_conversation(session, guest, conversation_id)
        return conversation, list(await messages.history(session, conversation.id, after))
