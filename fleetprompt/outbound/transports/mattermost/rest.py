"""Finding the channel, posting as a bot, and looking for a post again (contract A7).

A post carries its key twice. ``pending_post_id`` keeps the server's node from making a second post of
it for 30 seconds; the key in ``props`` stays for good, and whoever may read the channel finds the
post by it.
"""

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import msgspec

from fleetprompt.clock import system_clock
from fleetprompt.outbound.http import OutboundClient, OutboundError, Reply
from fleetprompt.outbound.ledger import Mark
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.replies import is_page
from fleetprompt.outbound.sighting import Sighting
from fleetprompt.outbound.transports.mattermost.server import (
    Server,
    decode,
    failure,
    refusal,
    server_time,
)

_ID = re.compile(r"[a-z0-9]{26}")
# Clocks of the server's nodes differ a little, and its Date header may be a proxy's.
_MARGIN = timedelta(minutes=10)
_NO_CLOCK_MARGIN = timedelta(hours=24)
# The server gives no more than this of what changed since a time, in no order (trap 10).
SINCE_ROWS = 1000
_PAGE_ROWS = 60
_MOST_PAGES = 40
_LISTING_LIMIT = 8 * 1024 * 1024

_NO_CHANNEL = (
    "The channel was not found in the team: it may be archived, renamed, private or in another team. Use "
    "the team's and the channel's names from the channel's URL."
)
_FOREIGN = (
    "Mattermost refused: the channel is unknown to it, or the token's account is not a member. Add the "
    "account to the channel."
)


class User(msgspec.Struct):
    """The token's account."""

    id: str
    username: str = ""
    is_bot: bool = False
    roles: str = ""


class Channel(msgspec.Struct):
    """A channel; ``delete_at`` is set when it is archived."""

    id: str
    delete_at: int = 0
    team_id: str = ""


class _Post(msgspec.Struct):
    id: str
    user_id: str = ""
    channel_id: str = ""
    create_at: int = 0
    props: dict[str, Any] | None = None


class _Listing(msgspec.Struct):
    order: list[str]
    posts: dict[str, _Post] | None = None


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Who posts where, found out before a message is sent; ``time`` is as of ``find_channel``."""

    user: User
    channel: Channel
    time: datetime

    @property
    def mark(self) -> Mark:
        """What the ledger keeps of it."""
        return Mark(self.channel.id, self.user.id, self.time)


async def who_am_i(client: OutboundClient, server: Server) -> User | Outcome:
    """The token's account, or why it cannot be told."""
    second_factor = "The token's account must set up a second factor first; a bot's need not."
    reply = await _get(client, server, "/users/me", {403: ("auth", second_factor)})
    if isinstance(reply, Outcome):
        return reply
    user = decode(reply, User)
    return user if user is not None and _ID.fullmatch(user.id) else _odd()


async def find_channel(
    client: OutboundClient, server: Server, team: str, name: str
) -> tuple[Channel, datetime] | Outcome:
    """The team's channel of this name, with the server's time or ours, whichever is earlier; or why not."""
    reply = await _get(
        client,
        server,
        f"/teams/name/{quote(team, safe='')}/channels/name/{quote(name, safe='')}",
        {
            400: ("validation", _NO_CHANNEL),
            404: ("validation", _NO_CHANNEL),
            403: ("auth", "The token's account is not in this team. Add it to team and channel."),
        },
    )
    if isinstance(reply, Outcome):
        return reply
    channel = decode(reply, Channel)
    if channel is None or not _ID.fullmatch(channel.id):
        return _odd()
    if channel.delete_at:
        return Outcome("rejected", "validation", _NO_CHANNEL, reply.status)
    # The header may be a proxy's that is ahead. Looking from too early on only finds more.
    now = system_clock()
    return channel, min(server_time(reply) or now - _NO_CLOCK_MARGIN, now)


async def whereabouts(
    client: OutboundClient, server: Server, team: str, name: str
) -> Whereabouts | Outcome:
    """Account and channel, both asked for anew; an Outcome that is never ``unknown`` otherwise."""
    user = await who_am_i(client, server)
    if isinstance(user, Outcome):
        return harmless(user)
    found = await find_channel(client, server, team, name)
    if isinstance(found, Outcome):
        return harmless(found)
    return Whereabouts(user, found[0], found[1])


async def post_as_bot(
    client: OutboundClient,
    server: Server,
    channel_id: str,
    text: str,
    key: str,
    *,
    silent: bool,
    file_id: str | None = None,
    not_after: float | None = None,
) -> Outcome:
    """Post once; ``remote_id`` is the post's id. The same key within 30 seconds gives the same post."""
    body: dict[str, Any] = {
        "channel_id": channel_id,
        "message": text,
        "pending_post_id": key,
        "props": {"fleetprompt": {"key": key}},
    }
    if file_id is not None:
        body["file_ids"] = [file_id]
    path = "/posts?silent=true" if silent else "/posts"
    content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    try:
        reply = await server.request(client, "POST", path, content=content, not_after=not_after)
    except OutboundError as error:
        return failure(error)
    if reply.status == 201:
        post = decode(reply, _Post)
        if post is not None and _ID.fullmatch(post.id) and post.channel_id == channel_id:
            return Outcome("posted", http_status=201, remote_id=post.id)
        return _odd(reply.status)
    refused = "Mattermost refused the message: the channel is archived, or the text does not fit."
    return refusal(reply, {400: ("validation", refused), 403: ("auth", _FOREIGN)})


async def look_for_post(
    client: OutboundClient, server: Server, mark: Mark, key: str, *, by_webhook: bool
) -> Sighting:
    """Look for the post of this key in the channel where it was to go.

    A deleted one is there too (trap 9). The look is complete only where the server shows all that
    changed since; with a thousand changes or more it need not (trap 10), and the pages of what is
    still there can show the post but cannot prove that there is none.
    """
    if not mark.place or mark.remote_time is None:
        return Sighting(None, False, "unknown", "It was not noted where to look for the message.")
    since = round((mark.remote_time - _MARGIN).timestamp() * 1000)
    path = f"/channels/{mark.place}/posts"
    finder = _Finder(mark, key, by_webhook)
    reply = await _get(client, server, f"{path}?since={since}", _READING, _LISTING_LIMIT)
    if isinstance(reply, Outcome):
        return _unseen(reply)
    listing = decode(reply, _Listing)
    if listing is not None:
        rows = listing.posts or {}
        if found := finder.in_rows(rows):
            return Sighting(found, True)
        if len(rows) < SINCE_ROWS and len(listing.order) < SINCE_ROWS:
            return Sighting(None, True)
    elif reply.body_complete:
        return _unseen(_odd(reply.status))
    return await _page_through(client, server, path, since, finder)


@dataclass(frozen=True, slots=True)
class _Finder:
    """Whether a post is the one; anybody may copy a key, so its author must be right as well."""

    mark: Mark
    key: str
    by_webhook: bool

    def in_rows(self, rows: dict[str, _Post]) -> str | None:
        """The id of the post among these."""
        return min((p.id for p in rows.values() if self._is_it(p)), default=None)

    def _is_it(self, post: _Post) -> bool:
        props = post.props or {}
        own = props.get("fleetprompt")
        if not isinstance(own, dict) or own.get("key") != self.key or not _ID.fullmatch(post.id):
            return False
        if self.by_webhook:
            return props.get("from_webhook") == "true"
        return post.user_id == self.mark.author


async def _page_through(
    client: OutboundClient, server: Server, path: str, since: int, finder: _Finder
) -> Sighting:
    """Page back from the newest until before ``since``; finds, and never proves absence."""
    crowded = (
        "The channel has more news than can be looked through, and the message is not among them."
    )
    for page in range(_MOST_PAGES):
        query = f"{path}?page={page}&per_page={_PAGE_ROWS}"
        reply = await _get(client, server, query, _READING, _LISTING_LIMIT)
        if isinstance(reply, Outcome):
            return _unseen(reply)
        listing = decode(reply, _Listing)
        if listing is None:
            return _unseen(_odd(reply.status))
        rows = listing.posts or {}
        if found := finder.in_rows(rows):
            return Sighting(found, True)
        if not rows or min(post.create_at for post in rows.values()) < since:
            break
    return Sighting(None, False, "unknown", crowded)


_READING: dict[int, tuple[Any, str]] = {
    403: ("auth", "The token's account may not read the channel. Add it to the channel."),
    404: ("validation", "The channel where the message was to go is not there any more."),
}


async def _get(
    client: OutboundClient,
    server: Server,
    path: str,
    told: dict[int, tuple[Any, str]],
    read_limit: int = 256 * 1024,
) -> Reply | Outcome:
    try:
        reply = await server.request(client, "GET", path, read_limit=read_limit)
    except OutboundError as error:
        return failure(error)
    return refusal(reply, told) if reply.status != 200 or is_page(reply) else reply


def harmless(outcome: Outcome) -> Outcome:
    """The outcome of a call without effects: what is not known may simply be asked again."""
    if outcome.state != "unknown":
        return outcome
    return Outcome("retryable", outcome.error_kind, outcome.message, outcome.http_status)


def _unseen(outcome: Outcome) -> Sighting:
    kind = outcome.error_kind or "unknown"
    return Sighting(None, False, kind, outcome.message, outcome.retry_after_seconds)


def _odd(status: int | None = None) -> Outcome:
    return Outcome("unknown", "unknown", "The answer is not the one that Mattermost gives.", status)
