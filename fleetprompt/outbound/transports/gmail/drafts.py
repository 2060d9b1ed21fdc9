"""Drafts in a user's mailbox: make, rewrite, send, look at, withdraw (Gmail API v1, users.drafts).

``messages.send`` has no handle by which to ask afterwards; a draft is one. Sending a draft deletes it
and leaves a sent message, so that a draft is sent at most once whatever is repeated
(research/mattermost_digest.md, Gmail). Its id stays when it is rewritten.
"""

import base64
import json
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

import msgspec

from fleetprompt.outbound.http import OutboundClient, OutboundError, Reply
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.gmail.account import GmailAccount
from fleetprompt.outbound.transports.gmail.answers import failure, refusal, whole

_ANSWER_LIMIT = 256 * 1024
_FOUND_LIMIT = 10


class _Message(msgspec.Struct):
    id: str
    labelIds: list[str] = []  # noqa: N815 - the interface's name


class _Draft(msgspec.Struct):
    id: str
    message: _Message | None = None


class _Drafts(msgspec.Struct):
    drafts: list[_Draft] = []


@dataclass(frozen=True)
class Mailbox:
    """One user's drafts, by a token that is good for this user alone."""

    client: OutboundClient
    account: GmailAccount
    user: str
    _token: str = field(repr=False)

    async def create(self, message: bytes) -> str | Outcome:
        """A new draft's id. What is not certain left a draft at most, which nobody sends."""
        reply = await self._ask("POST", "", _raw(message))
        return self._drafted(reply)

    async def rewrite(self, draft: str, message: bytes) -> str | Outcome | None:
        """Put another message into the draft, which keeps its id; None if there is no such draft."""
        reply = await self._ask("PUT", f"/{quote(draft, safe='')}", _raw(message))
        if isinstance(reply, Reply) and reply.status == 404 and _from_gmail(reply):
            return None
        return self._drafted(reply)

    @staticmethod
    def _drafted(reply: Reply | Outcome) -> str | Outcome:
        if isinstance(reply, Outcome):
            return _harmless(reply)
        made = whole(reply, _Draft) if reply.status == 200 else None
        return made.id if made else refusal(reply).harmless()

    async def send(self, draft: str, *, not_after: float | None = None) -> Outcome:
        """Send the draft; ``remote_id`` is the sent message's."""
        reply = await self._ask("POST", "/send", {"id": draft}, not_after=not_after)
        if isinstance(reply, Outcome):
            return reply
        sent = whole(reply, _Message) if reply.status == 200 else None
        if sent is not None:
            return Outcome("posted", http_status=200, remote_id=sent.id)
        if reply.status == 404:
            # Gone: withdrawn by a person, or sent by a request that we took for lost.
            words = "Gmail has no such draft any more."
            return Outcome("unknown", "unknown", words, 404)
        return refusal(reply).outcome

    async def look(self, draft: str) -> Literal["there", "gone"] | str | Outcome:
        """``there``, ``gone``, or the id of the message that it became: ``sent:<id>``."""
        reply = await self._ask("GET", f"/{quote(draft, safe='')}?format=minimal")
        if isinstance(reply, Outcome):
            return _harmless(reply)
        if reply.status == 404 and _from_gmail(reply):
            return "gone"
        found = whole(reply, _Draft) if reply.status == 200 else None
        if found is None:
            return refusal(reply).harmless()
        # A wrapper that still stands around a message already sent was seen in the field
        # (research/messaging.md §3.3).
        if found.message is not None and "SENT" in found.message.labelIds:
            return f"sent:{found.message.id}"
        return "there"

    async def withdraw(self, draft: str) -> Literal["withdrawn", "gone"] | Outcome:
        """Delete the draft."""
        reply = await self._ask("DELETE", f"/{quote(draft, safe='')}")
        if isinstance(reply, Outcome):
            return _harmless(reply)
        if reply.status in (200, 204):
            return "withdrawn"
        return "gone" if reply.status == 404 and _from_gmail(reply) else refusal(reply).harmless()

    async def find(self, token: str) -> list[str]:
        """Drafts that hold the token, as far as Gmail's index knows; empty if it cannot be asked."""
        query = quote(f'"{token}"', safe="")
        reply = await self._ask("GET", f"?maxResults={_FOUND_LIMIT}&q={query}")
        if isinstance(reply, Outcome) or reply.status != 200:
            return []
        found = whole(reply, _Drafts)
        return [one.id for one in found.drafts] if found else []

    async def asked(self) -> Outcome | None:
        """Why the drafts cannot be listed; None if they can."""
        reply = await self._ask("GET", "?maxResults=1")
        if isinstance(reply, Outcome):
            return _harmless(reply)
        listed = whole(reply, _Drafts) if reply.status == 200 else None
        return None if listed is not None else refusal(reply).harmless()

    async def _ask(
        self, method: str, path: str, body: object = None, *, not_after: float | None = None
    ) -> Reply | Outcome:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            return await self.client.request(
                method,
                f"{self.account.address}/gmail/v1/users/me/drafts{path}",
                headers=headers,
                content=b"" if body is None else json.dumps(body).encode(),
                read_limit=_ANSWER_LIMIT,
                not_after=not_after,
            )
        except OutboundError as error:
            return failure(error).outcome


def _raw(message: bytes) -> dict[str, dict[str, str]]:
    return {"message": {"raw": base64.urlsafe_b64encode(message).decode("ascii")}}


def _harmless(outcome: Outcome) -> Outcome:
    if outcome.state != "unknown":
        return outcome
    return Outcome("retryable", outcome.error_kind, outcome.message, outcome.http_status)


def _from_gmail(reply: Reply) -> bool:
    """Whether a 404 is the interface's own, not that of something in between."""
    return reply.media_type == "application/json"


async def open_mailbox(
    client: OutboundClient, account: GmailAccount, user: str
) -> Mailbox | Outcome:
    """The user's drafts; an Outcome that is never ``unknown`` where there is no token for them."""
    token = await account.token(client, user)
    return token if isinstance(token, Outcome) else Mailbox(client, account, user, token)
