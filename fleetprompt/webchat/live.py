"""Who follows which conversation in this process, and what is new in it.

One task and one look a tenant serve all that follow: after each notice, and every other second because a
notice may be lost. Nobody who follows holds a database connection. Who watches all conversations of a
tenant hears which of them changed, and looks itself.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import BigInteger, Uuid

from fleetprompt.db.engine import Database
from fleetprompt.directives.wake import end_task
from fleetprompt.errors import FleetPromptError, OverloadedError, RateLimitedError
from fleetprompt.webchat.messages import PAGE
from fleetprompt.webchat.models import ChatConversation, ChatMessage
from fleetprompt.webchat.notices import NoticeBoard, Place
from fleetprompt.webchat.views import View, conversation_view, message_view

_POLL = 2.0  # seconds
_PAUSE = 0.005  # seconds between looks, however many notices come
_MOST_FOLLOWERS = 5_000  # in a process
_MOST_OF_ONE = 8  # of one conversation in a process; the widget opens one a browser
_MOST_WATCHERS = 100  # of one tenant in a process
_MOST_WAITING = 50  # news that a slow follower may have before it has to look itself
TYPING_HOLDS = 6.0  # seconds

logger = logging.getLogger(__name__)

_NEW_MESSAGES = select(ChatMessage).from_statement(
    text(
        """
            SELECT m.* FROM unnest(:conversations, :afters) AS f (conversation_id, after)
            JOIN website_chat_messages m ON m.conversation_id = f.conversation_id
                AND m.seq > f.after AND m.seq <= f.after + :most
            ORDER BY m.conversation_id, m.seq
            """
    )
    .bindparams(
        bindparam("conversations", type_=ARRAY(Uuid())),
        bindparam("afters", type_=ARRAY(BigInteger())),
    )
    .columns(*ChatMessage.__table__.columns)
)

Key = tuple[str, UUID]


@dataclass(slots=True)
class News:
    """How a conversation is now and which messages are new, or that somebody is typing."""

    conversation: View | None = None
    messages: Sequence[View] = ()
    typing: bool = False


@dataclass(eq=False, slots=True)
class Waiter:
    """One who waits until ``rung``."""

    rung: asyncio.Event = field(default_factory=asyncio.Event, kw_only=True)

    async def wait(self, seconds: float) -> None:
        """Return when there is something, and after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self.rung.wait()
        self.rung.clear()


@dataclass(eq=False, slots=True)
class Watcher(Waiter):
    """One who watches a tenant's conversations: those that changed, and those where a visitor types.

    ``everything``: notices may have been missed, so that any may have changed.
    """

    changed: set[UUID] = field(default_factory=set)
    typing: set[UUID] = field(default_factory=set)
    everything: bool = False

    def hear(self, place: Place) -> None:
        """Note a place."""
        if place.typing is None:
            self.changed.add(place.conversation_id)
        elif place.typing == "visitor":
            self.typing.add(place.conversation_id)
        self.rung.set()

    def take(self) -> tuple[set[UUID], set[UUID], bool]:
        """What was noted since the last time: changed, typing, everything."""
        noted = self.changed, self.typing, self.everything
        self.changed, self.typing, self.everything = set(), set(), False
        return noted


@dataclass(eq=False, slots=True)
class Follower(Waiter):
    """One who follows a conversation. ``told`` is the highest number that was put into ``news``.

    ``behind``: news were dropped, so that who follows has to read the history from where it stands.
    """

    told: int
    revision: int = -1
    news: deque[News] = field(default_factory=deque)
    behind: bool = False

    def give(self, news: News) -> None:
        """Add news."""
        if len(self.news) >= _MOST_WAITING:
            self.news.clear()
            self.behind = True
        else:
            self.news.append(news)
        self.rung.set()

    def knows(self, revision: int, seq: int) -> None:
        """Who follows has read up to here by itself, so that nobody need tell of it again."""
        self.revision, self.told = max(self.revision, revision), max(self.told, seq)


class Live:
    """The conversations that are followed in this process."""

    def __init__(self, database: Database, *, poll_seconds: float = _POLL) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._followers: dict[Key, set[Follower]] = {}
        self._watchers: dict[str, set[Watcher]] = {}
        self._number = 0
        self._changed: set[Key] = set()
        self._something = asyncio.Event()
        self._everything = False
        self._typing: dict[Key, float] = {}
        self._board = NoticeBoard(database.url, self._heard, self._look_at_all)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._board.start()
        self._task = asyncio.create_task(self._run(), name="webchat")

    async def close(self) -> None:
        """Stop."""
        await self._board.close()
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await end_task(self._task)

    def check_room(self, schema: str, conversation_id: UUID) -> None:
        """OverloadedError or RateLimitedError when nobody more may follow."""
        if self._number >= _MOST_FOLLOWERS:
            raise OverloadedError("Too many streams are open in this process.", retry_after=5)
        if len(self._followers.get((schema, conversation_id), ())) >= _MOST_OF_ONE:
            raise RateLimitedError(
                "This conversation is followed often enough.", retry_after=5, scope="conversation"
            )

    @contextlib.contextmanager
    def follow(self, schema: str, conversation_id: UUID, after: int) -> Iterator[Follower]:
        """Follow a conversation from above ``after``; read the history once this has begun."""
        key = (schema, conversation_id)
        follower = Follower(told=after)
        self._followers.setdefault(key, set()).add(follower)
        self._number += 1
        try:
            yield follower
        finally:
            self._number -= 1
            self._followers[key].discard(follower)
            if not self._followers[key]:
                del self._followers[key]

    @contextlib.contextmanager
    def watch(self, schema: str) -> Iterator[Watcher]:
        """Watch all conversations of a tenant; RateLimitedError when nobody more may."""
        watchers = self._watchers.setdefault(schema, set())
        if len(watchers) >= _MOST_WATCHERS:
            raise RateLimitedError("The inbox is open often enough.", retry_after=5)
        watcher = Watcher()
        watchers.add(watcher)
        try:
            yield watcher
        finally:
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(schema, None)

    def tell(self, schema: str, conversation_id: UUID) -> None:
        """Have all who follow a conversation, here and elsewhere, be told what was committed."""
        self._heard(Place(schema, conversation_id))
        self._board.tell(Place(schema, conversation_id))

    def tell_typing(self, schema: str, conversation_id: UUID, who: str) -> None:
        """Have it known that somebody, ``visitor`` or ``agent``, is typing; kept in memory alone."""
        place = Place(schema, conversation_id, who)
        self._heard(place)
        self._board.tell(place)

    def visitor_is_typing(self, schema: str, conversation_id: UUID) -> bool:
        """Whether the visitor has typed within the last seconds."""
        return time.monotonic() - self._typing.get((schema, conversation_id), -60.0) < TYPING_HOLDS

    def _heard(self, place: Place) -> None:
        for watcher in self._watchers.get(place.schema, ()):
            watcher.hear(place)
        key = (place.schema, place.conversation_id)
        if place.typing == "visitor":
            self._note_typing(key)
        elif place.typing is not None:
            for follower in self._followers.get(key, ()):
                follower.give(News(typing=True))
        elif key in self._followers:
            self._changed.add(key)
            self._something.set()

    def _note_typing(self, key: Key) -> None:
        now = time.monotonic()
        if len(self._typing) > _MOST_FOLLOWERS:
            self._typing = {k: at for k, at in self._typing.items() if now - at < TYPING_HOLDS}
        self._typing[key] = now

    def _look_at_all(self) -> None:
        for watcher in chain.from_iterable(self._watchers.values()):
            watcher.everything = True
            watcher.rung.set()
        self._everything = True
        self._something.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._something.wait()
            except TimeoutError:
                self._everything = True
            self._something.clear()
            keys, self._changed = self._changed, set()
            if self._everything:
                keys, self._everything = set(self._followers), False
            by_schema: dict[str, list[UUID]] = {}
            for schema, conversation_id in keys:
                by_schema.setdefault(schema, []).append(conversation_id)
            for schema, conversations in by_schema.items():
                try:
                    await self._look(schema, conversations)
                except FleetPromptError as error:
                    logger.warning("no look for chat messages: %s", error.id)
                except DBAPIError:
                    logger.exception("looking for chat messages failed")
            await asyncio.sleep(_PAUSE)

    async def _look(self, schema: str, ids: Sequence[UUID]) -> None:
        async with self._database.tenant(schema) as session:
            found = await session.scalars(
                select(ChatConversation).where(ChatConversation.id.in_(ids))
            )
            changed = [one for one in found if self._is_new(schema, one)]
            if not changed:
                return
            afters = [self._least_told(schema, one.id) for one in changed]
            messages: dict[UUID, list[View]] = {}
            rows = await session.scalars(
                _NEW_MESSAGES,
                {"conversations": [one.id for one in changed], "afters": afters, "most": PAGE},
            )
            for row in rows:
                messages.setdefault(row.conversation_id, []).append(message_view(row))
        for conversation in changed:
            self._deliver(schema, conversation, messages.get(conversation.id, []))

    def _is_new(self, schema: str, conversation: ChatConversation) -> bool:
        followers = self._followers.get((schema, conversation.id), ())
        return any(follower.revision < conversation.revision for follower in followers)

    def _least_told(self, schema: str, conversation_id: UUID) -> int:
        followers = self._followers.get((schema, conversation_id), ())
        return min((follower.told for follower in followers), default=0)

    def _deliver(
        self, schema: str, conversation: ChatConversation, messages: Sequence[View]
    ) -> None:
        view = conversation_view(conversation)
        for follower in self._followers.get((schema, conversation.id), ()):
            if follower.revision < conversation.revision:
                follower.revision = conversation.revision
                new = [one for one in messages if one["seq"] > follower.told]
                if new:
                    follower.told = new[-1]["seq"]
                follower.give(News(view, new))
