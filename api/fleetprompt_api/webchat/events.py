"""``GET /events``: a conversation as server-sent events (WHATWG HTML §9.2), resumed by its numbers.

1. The stream subscribes.
2. After that it checks the conversation and reads its history, in one short transaction and before the answer
   begins, so that a refusal is a problem document. What is committed in between is in one of the two, and
   what is in both is told once, by its number.
3. It waits without any database connection for what ``Live`` hands it.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from typing import Annotated
from uuid import UUID

from fastapi import Header

from fleetprompt.errors import FleetPromptError, InvalidError, NotFoundError
from fleetprompt.webchat import conversations, messages
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.live import Follower, News
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.views import View, conversation_view, message_view
from fleetprompt_api.auth import Platform
from fleetprompt_api.state import AppState
from fleetprompt_api.webchat.following import HeldStream, wait_for_news
from fleetprompt_api.webchat.guests import GuestRoute, TheGuest, router

routes = router(GuestRoute)

PING_SECONDS = 15.0
# The stream ends this long before its token, so that a new one is fetched in time.
_BEFORE_EXPIRY = 5.0

Page = tuple[ChatConversation, Sequence[ChatMessage]]


@routes.get("/events", response_class=HeldStream)
async def follow_conversation(
    guest: TheGuest,
    platform: Platform,
    conversation_id: UUID,
    last_event_id: Annotated[str, Header(max_length=20)] = "0",
) -> HeldStream:
    """Everything above ``Last-Event-ID``, and then what comes."""
    if not last_event_id.isascii() or not last_event_id.isdigit():
        raise InvalidError(
            errors=[{"pointer": "#header/last-event-id", "detail": "a message's number"}]
        )
    live, schema = platform.chat_live, guest.site.tenant.schema
    live.check_room(schema, conversation_id)
    after = min(int(last_event_id), 2**62)
    with ExitStack() as held:
        follower = held.enter_context(live.follow(schema, conversation_id, after))
        stream = _Stream(platform, guest, conversation_id, after)
        first = await stream.read()
        return HeldStream(stream.run(follower, first), held.pop_all())


class _Stream:
    """One open stream; ``sent`` is the number of the last message that went out."""

    def __init__(self, platform: AppState, guest: Guest, conversation_id: UUID, after: int) -> None:
        self._platform, self._guest = platform, guest
        self._conversation_id, self.sent = conversation_id, after
        self._status, self._agent = "open", guest.site.name

    async def run(self, follower: Follower, first: Page) -> AsyncIterator[bytes]:
        """The events, until the token, the conversation or the process ends."""
        yield self._conversation(conversation_view(first[0]))
        try:
            async for part in self._history(follower, first):
                yield part
            async for part in self._news(follower):
                yield part
        except FleetPromptError:
            # The answer has begun; the widget comes again and is told then.
            return

    async def _news(self, follower: Follower) -> AsyncIterator[bytes]:
        while self._status != "erased" and not self._platform.closing.is_set():
            left = self._guest.expires_at - _BEFORE_EXPIRY - self._platform.clock().timestamp()
            if left <= 0:
                yield _event("token", {})
                return
            if not follower.news:
                await wait_for_news(self._platform, follower, min(PING_SECONDS, left))
            if follower.behind:
                follower.behind = False
                async for part in self._history(follower):
                    yield part
            elif follower.news:
                async for part in self._told(follower, follower.news.popleft()):
                    yield part
            else:
                await self._check_site()
                yield b": ping\n\n"

    async def _told(self, follower: Follower, news: News) -> AsyncIterator[bytes]:
        if news.typing:
            yield _event("typing", {"author": self._agent})
        if news.conversation is None:
            return
        for message in news.messages:
            if message["seq"] == self.sent + 1:
                yield self._message(message)
        yield self._conversation(news.conversation)
        if self.sent < news.conversation["last_seq"]:
            async for part in self._history(follower):
                yield part

    async def _history(self, follower: Follower, page: Page | None = None) -> AsyncIterator[bytes]:
        """Everything above ``sent`` as it is stored now, or from ``page`` on, which was read already."""
        while True:
            conversation, found = page or await self.read()
            page = None
            for message in found:
                yield self._message(message_view(message))
            if len(found) < messages.PAGE:
                follower.knows(conversation.revision, self.sent)
                return

    async def read(self) -> Page:
        """The visitor's conversation and its next messages; NotFoundError where it is no more."""
        async with self._platform.database.tenant(self._guest.site.tenant.schema) as session:
            conversation = await conversations.own_conversation(
                session, self._guest, self._conversation_id
            )
            return conversation, await messages.history(session, conversation.id, self.sent)

    async def _check_site(self) -> None:
        """The site may have been switched off since."""
        site = await self._platform.chat_sites.find(self._guest.site.key)
        if not site.active:
            raise NotFoundError("The site is switched off.")

    def _message(self, message: View) -> bytes:
        self.sent = message["seq"]
        return _event("message", message, number=self.sent)

    def _conversation(self, conversation: View) -> bytes:
        self._status = conversation["status"]
        self._agent = conversation["agent"] or self._agent
        return _event("conversation", conversation)


def _event(kind: str, data: View, number: int | None = None) -> bytes:
    place = "" if number is None else f"id: {number}\n"
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {kind}\n{place}data: {text}\n\n".encode()
