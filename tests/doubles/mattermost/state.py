"""The stand-in's memory: users, team, channels, hooks, posts and files."""

import mimetypes
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Literal

from .behaviour import Behaviour
from .text import Mentions

_ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"
DEFAULT_HOOK_ID = "d3moh00kd3moh00kd3moh00kab"


def make_id() -> str:
    """26 characters of the alphabet that Mattermost's ids use."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(26))


@dataclass(frozen=True)
class User:
    """An account; a bot's token works even where personal tokens are disabled."""

    username: str
    is_bot: bool = False
    id: str = field(default_factory=make_id)


@dataclass
class Channel:
    """A channel: ``O`` open, ``P`` private, ``D`` direct."""

    name: str
    display_name: str
    type: Literal["O", "P", "D"] = "O"
    team_id: str = ""
    delete_at: int = 0
    members: int = 12
    id: str = field(default_factory=make_id)

    def as_json(self) -> dict[str, Any]:
        """The channel as the REST interface shows it."""
        return {
            "id": self.id,
            "team_id": self.team_id,
            "type": self.type,
            "name": self.name,
            "display_name": self.display_name,
            "delete_at": self.delete_at,
            "header": "",
            "purpose": "",
        }


@dataclass
class Post:
    """One saved post; times are Unix milliseconds."""

    channel_id: str
    user_id: str
    message: str
    original: str
    create_at: int
    props: dict[str, Any] = field(default_factory=dict)
    type: str = ""
    root_id: str = ""
    file_ids: list[str] = field(default_factory=list)
    silent: bool = False
    mentions: Mentions = field(default_factory=Mentions)
    update_at: int = 0
    delete_at: int = 0
    edit_at: int = 0
    id: str = field(default_factory=make_id)

    def as_json(self, pending_post_id: str = "") -> dict[str, Any]:
        """The post as the REST interface shows it."""
        return {
            "id": self.id,
            "create_at": self.create_at,
            "update_at": self.update_at,
            "edit_at": self.edit_at,
            "delete_at": self.delete_at,
            "is_pinned": False,
            "user_id": self.user_id,
            "channel_id": self.channel_id,
            "root_id": self.root_id,
            "message": "" if self.delete_at else self.message,
            "type": self.type,
            "props": self.props,
            "hashtags": "",
            "file_ids": self.file_ids,
            "pending_post_id": pending_post_id,
            "metadata": {},
        }


@dataclass(frozen=True)
class Hook:
    """An incoming webhook, bound to a channel and owned by a user."""

    id: str
    channel_id: str
    team_id: str
    user_id: str


@dataclass
class UploadedFile:
    """A file that waits for a post of its uploader, or belongs to one."""

    name: str
    channel_id: str
    user_id: str
    content: bytes = field(repr=False)
    create_at: int
    post_id: str = ""
    id: str = field(default_factory=make_id)

    def as_json(self) -> dict[str, Any]:
        """The file as the REST interface shows it."""
        return {
            "id": self.id,
            "user_id": self.user_id,
            "post_id": self.post_id,
            "channel_id": self.channel_id,
            "create_at": self.create_at,
            "update_at": self.create_at,
            "delete_at": 0,
            "name": self.name,
            "extension": self.name.rpartition(".")[2],
            "size": len(self.content),
            "mime_type": mimetypes.guess_type(self.name)[0] or "application/octet-stream",
        }


@dataclass(frozen=True)
class Received:
    """One HTTP request as it came in; the body is not kept."""

    method: str
    path: str


_PENDING_SECONDS = 30.0
_PENDING_ENTRIES = 25_000


class PendingPosts:
    """One node's memory of ``pending_post_id``: the post's id, or empty while it is being saved."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def get(self, key: str, now: float) -> str | None:
        """The remembered post id, empty when in flight, ``None`` when unknown or older than 30 s."""
        entry = self._entries.get(key)
        if entry is None or now - entry[0] >= _PENDING_SECONDS:
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def set(self, key: str, post_id: str, now: float) -> None:
        """Remember the key from now on; the oldest of 25,000 falls out."""
        self._entries[key] = (now, post_id)
        self._entries.move_to_end(key)
        while len(self._entries) > _PENDING_ENTRIES:
            self._entries.popitem(last=False)

    def forget(self, key: str) -> None:
        """Drop the key, so that a retry creates normally."""
        self._entries.pop(key, None)


class State:
    """One team with its channels; ``reset`` brings it back to the beginning."""

    team_name = "operations"

    def __init__(self, behaviour: Behaviour | None = None, hook_id: str = DEFAULT_HOOK_ID) -> None:
        self.behaviour = behaviour or Behaviour()
        self.hook_id = hook_id
        self.lock = threading.RLock()
        self.team_id = make_id()
        self.other_team_id = make_id()
        self.owner = User("hook-owner")
        self.bot = User("fleetprompt", is_bot=True)
        self.users = {user.id: user for user in (self.owner, self.bot)}
        self.tokens = {make_id(): self.owner, make_id(): self.bot}
        self.reset()

    def reset(self) -> None:
        """Forget posts, files, requests and channels made on the way; keep switches and tokens."""
        with self.lock:
            self.town_square = self._channel("town-square", "Town Square")
            self.reports = self._channel("fleet-reports", "Fleet Reports")
            self.private = self._channel("leads", "Leads", type="P")
            self.archived = self._channel("old-reports", "Old Reports", delete_at=1)
            self.elsewhere = Channel("elsewhere", "Elsewhere", team_id=self.other_team_id)
            every = (self.town_square, self.reports, self.private, self.archived, self.elsewhere)
            self.channels = {channel.id: channel for channel in every}
            self.hooks = {
                self.hook_id: Hook(self.hook_id, self.reports.id, self.team_id, self.owner.id)
            }
            self.posts: list[Post] = []
            self.files: dict[str, UploadedFile] = {}
            self.requests: list[Received] = []
            self.pending: dict[int, PendingPosts] = {}
            self._turn = 0
            self._read_turn = 0
            self._last_ms = 0

    def _channel(self, name: str, display_name: str, **more: Any) -> Channel:
        return Channel(name, display_name, team_id=self.team_id, **more)

    @property
    def owner_token(self) -> str:
        """A person's access token."""
        return next(token for token, user in self.tokens.items() if user is self.owner)

    @property
    def bot_token(self) -> str:
        """The bot's access token."""
        return next(token for token, user in self.tokens.items() if user is self.bot)

    def now(self) -> float:
        """Unix seconds on the server's clock."""
        return time.time() + self.behaviour.clock_offset_seconds

    def now_ms(self) -> int:
        """Unix milliseconds, strictly rising, so that posts keep their order."""
        with self.lock:
            self._last_ms = max(self._last_ms + 1, int(self.now() * 1000))
            return self._last_ms

    def usernames(self) -> dict[str, str]:
        """User ids and their names."""
        return {user.id: user.username for user in self.users.values()}

    def channel_by_name(self, team_id: str, name: str) -> Channel | None:
        """A channel of the team that is not archived; the name's case counts."""
        for channel in self.channels.values():
            if (channel.team_id, channel.name) == (team_id, name) and not channel.delete_at:
                return channel
        return None

    def direct_channel(self, one: User, other: User) -> Channel:
        """The direct channel of two users, made when there is none."""
        name = "__".join(sorted((one.id, other.id)))
        found = self.channel_by_name("", name)
        if found is None:
            found = Channel(name, other.username, type="D", members=2)
            self.channels[found.id] = found
        return found

    def pending_of_next_node(self) -> PendingPosts:
        """The pending posts of the node whose turn it is."""
        with self.lock:
            node = self._turn % max(1, self.behaviour.nodes)
            self._turn += 1
            return self.pending.setdefault(node, PendingPosts())

    def lag_of_next_replica(self) -> float:
        """Seconds that the database whose turn it is to be read lags behind."""
        with self.lock:
            replica = self._read_turn % max(1, self.behaviour.replicas)
            self._read_turn += 1
            return self.behaviour.replica_lag_seconds if replica == 0 else 0.0

    def is_limited(self) -> bool:
        """Whether this request is over the limit; counts down where a count is set."""
        with self.lock:
            switches = self.behaviour
            if not switches.rate_limited or switches.rate_limit_requests == 0:
                return False
            if switches.rate_limit_requests is not None:
                switches.rate_limit_requests -= 1
            return True

    def delete_post(self, post_id: str) -> None:
        """What a person does in the channel: the row stays, marked deleted."""
        with self.lock:
            post = next(post for post in self.posts if post.id == post_id)
            post.delete_at = post.update_at = self.now_ms()

    def take_fault(self) -> str:
        """The fault that hits this writing request; counts down where a count is set."""
        return self._take("fault")

    def take_upload_fault(self) -> str:
        """The fault that hits this upload."""
        return self._take("upload_fault")

    def _take(self, which: str) -> str:
        with self.lock:
            fault = str(getattr(self.behaviour, which))
            left = getattr(self.behaviour, f"{which}_requests")
            if fault == "none" or left == 0:
                return "none"
            if left is not None:
                setattr(self.behaviour, f"{which}_requests", left - 1)
            return fault
