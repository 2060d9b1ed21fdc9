"""The three ways to Mattermost, as ``fleetprompt.outbound.delivery`` uses them.

- ``WebhookWay`` posts through an incoming webhook; nothing tells afterwards whether it arrived.
- ``BotWay`` posts over REST with a token, and reads back with it.
- ``HybridWay`` posts through a webhook, and reads back with a token that need not be able to post.
"""

from dataclasses import dataclass, replace

from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.ledger import Mark
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.sighting import Sighting
from fleetprompt.outbound.transports.mattermost.files import Attachment, upload
from fleetprompt.outbound.transports.mattermost.message import WebhookMessage, WebhookUrl
from fleetprompt.outbound.transports.mattermost.post import post_webhook
from fleetprompt.outbound.transports.mattermost.rest import (
    Whereabouts,
    find_channel,
    harmless,
    look_for_post,
    post_as_bot,
    whereabouts,
)
from fleetprompt.outbound.transports.mattermost.server import Server

# There nobody can look.
_NOWHERE = Mark()
# Definite refusals, before anything is saved, that a file may be the cause of.
_PERHAPS_FOR_THE_FILE = (400, 403)


@dataclass(frozen=True, slots=True)
class WebhookWay:
    """Through ``url``; the key goes along in ``props``."""

    client: OutboundClient
    url: WebhookUrl
    message: WebhookMessage
    can_look: bool = False
    known_mark: Mark | None = _NOWHERE

    async def prepare(self) -> Mark | Outcome:
        """Nothing to find out."""
        return Mark()

    async def send(self, key: str, not_after: float) -> Outcome:
        """Post once; nobody can tell it from another post of the same text."""
        message = replace(self.message, props={**self.message.props, **_props(key)})
        return await post_webhook(self.client, self.url, message, not_after=not_after)

    async def look(self, key: str, mark: Mark) -> Sighting:
        """Without a token nothing can be read."""
        return Sighting(
            None, False, "validation", "A webhook cannot read; connect a token to look for posts."
        )

    def permalink(self, remote_id: str) -> str | None:
        """Unknown."""
        return None


class BotWay:
    """As the account of ``server``'s token, in the team's channel of this name.

    ``picture`` goes along if the server takes it; ``left_out`` tells why it did not.
    """

    can_look = True
    known_mark: Mark | None = None
    left_out: str | None = None

    def __init__(
        self,
        client: OutboundClient,
        server: Server,
        team: str,
        channel: str,
        message: WebhookMessage,
        picture: Attachment | None = None,
    ) -> None:
        self._client, self._server, self._message = client, server, message
        self._team, self._channel, self._picture = team, channel, picture
        self._where: Whereabouts | None = None
        self._file_id: str | None = None

    async def prepare(self) -> Mark | Outcome:
        """Who posts where, asked before anything is sent; and the picture, which nobody sees yet."""
        found = await whereabouts(self._client, self._server, self._team, self._channel)
        if isinstance(found, Outcome):
            return found
        self._where, self._file_id = found, None
        if self._picture is not None:
            uploaded = await upload(self._client, self._server, found.channel.id, self._picture)
            if isinstance(uploaded, Outcome):
                self.left_out = uploaded.message
            else:
                self._file_id, self.left_out = uploaded, None
        return found.mark

    async def send(self, key: str, not_after: float) -> Outcome:
        """Post once; ``prepare`` goes before. What is refused with the picture is posted without it."""
        outcome = await self._post(key, not_after, self._file_id)
        if self._file_id is not None and outcome.http_status in _PERHAPS_FOR_THE_FILE:
            without = await self._post(key, not_after, None)
            if without.state != "rejected":
                self.left_out = "The server refuses the message with a file."
            return without
        return outcome

    async def _post(self, key: str, not_after: float, file_id: str | None) -> Outcome:
        assert self._where is not None  # noqa: S101 - delivery prepares first
        return await post_as_bot(
            self._client,
            self._server,
            self._where.channel.id,
            self._message.text,
            key,
            # A person's token may not post silently: the server answers 403.
            silent=self._message.silent and self._where.user.is_bot,
            file_id=file_id,
            not_after=not_after,
        )

    async def look(self, key: str, mark: Mark) -> Sighting:
        """Look for the account's post of this key."""
        return await look_for_post(self._client, self._server, mark, key, by_webhook=False)

    def permalink(self, remote_id: str) -> str:
        """The post's address in Mattermost."""
        return _permalink(self._server, self._team, remote_id)


class HybridWay:
    """Through a webhook into the named channel, read back with a token.

    A token that works no more does not keep the digest from being posted: it goes out as through a
    webhook alone, and an ambiguous end of it stays unknown. So it does if the token's side gives no
    answer and nobody wants to ``wait`` for one any longer.
    """

    can_look = True
    known_mark: Mark | None = None

    def __init__(
        self, hook: WebhookWay, server: Server, team: str, channel: str, *, wait: bool = True
    ) -> None:
        self._hook, self._server, self._team, self._channel = hook, server, team, channel
        self._wait = wait

    async def prepare(self) -> Mark | Outcome:
        """Where the post will be looked for."""
        found = await find_channel(self._hook.client, self._server, self._team, self._channel)
        if not isinstance(found, Outcome):
            return Mark(found[0].id, None, found[1])
        tried = harmless(found)
        return Mark() if tried.state == "rejected" or not self._wait else tried

    async def send(self, key: str, not_after: float) -> Outcome:
        """Post once through the webhook."""
        return await self._hook.send(key, not_after)

    async def look(self, key: str, mark: Mark) -> Sighting:
        """Look for a webhook's post of this key."""
        return await look_for_post(self._hook.client, self._server, mark, key, by_webhook=True)

    def permalink(self, remote_id: str) -> str:
        """The post's address in Mattermost."""
        return _permalink(self._server, self._team, remote_id)


def _props(key: str) -> dict[str, dict[str, str]]:
    return {"fleetprompt": {"key": key}}


def _permalink(server: Server, team: str, post_id: str) -> str:
    return f"{server.address}/{team}/pl/{post_id}"
