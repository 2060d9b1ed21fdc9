"""Visitors and an operator of a chat whose server is killed, whose streams and answers are lost."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.api.webchat.widget import API, Widget

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
_PAUSE = 0.05  # seconds before the same is tried again


class GiveUpError(Exception):
    """An answer that nothing in this storm explains."""


@dataclass
class Visitor:
    """One visitor with a page that sends and a stream that reads; ``sent`` is what was acknowledged.

    ``seen`` holds what the streams of the present page told, by number.
    """

    client: httpx.AsyncClient
    site_key: str
    number: int
    chance: random.Random
    sent: list[str] = field(default_factory=list)
    seen: dict[int, str] = field(default_factory=dict)
    repeated: int = 0
    streams: int = 0
    closed_tabs: int = 0
    _widget: Widget | None = None
    _secret: str | None = None

    async def visit(self, messages: int) -> None:
        """Send so many messages one after the other, whatever happens."""
        for n in range(messages):
            words, client_id = f"{self.number}-{n}", str(uuid4())
            while True:
                try:
                    widget = await self._page()
                    answer = await widget.say(words, client_id)
                except httpx.TransportError:
                    self.repeated += 1
                    await asyncio.sleep(_PAUSE)
                    continue
                if answer.status_code == 503:
                    await asyncio.sleep(_PAUSE)
                    continue
                if answer.status_code not in (200, 201):
                    raise GiveUpError(f"{words}: {answer.status_code} {answer.text[:200]}")
                # A quarter of the acknowledgements is lost on the way.
                if self.chance.random() >= 0.25:
                    break
                self.repeated += 1
            self.sent.append(words)
            # The last page stays open, or nobody would read to the end.
            if self.chance.random() < 0.1 and n < messages - 1:
                self._close_tab()
            await asyncio.sleep(self.chance.uniform(0, 0.1))

    def _close_tab(self) -> None:
        """What is in memory is gone; the secret is what the browser keeps."""
        self.closed_tabs += 1
        self._widget, self.seen = None, {}

    async def _page(self) -> Widget:
        if self._widget is None:
            widget = Widget(self.client, self.site_key, visitor=self._secret)
            try:
                await widget.begin()
            except AssertionError as error:
                raise httpx.TransportError(str(error)) from None
            self._widget, self._secret = widget, widget.visitor
        return self._widget

    async def listen(self) -> None:
        """Read the conversation's stream for ever, cut again and again, and go on behind the last."""
        while True:
            widget = self._widget
            if widget is None:
                await asyncio.sleep(_PAUSE)
                continue
            with contextlib.suppress(httpx.TransportError, TimeoutError):
                async with asyncio.timeout(self.chance.uniform(0.5, 3)):
                    await self._stream(widget)
            await asyncio.sleep(_PAUSE)

    async def _stream(self, widget: Widget) -> None:
        page, last = self.seen, max(self.seen, default=0)
        headers = widget.sent_headers(**{"Last-Event-ID": str(last)})
        query = {"conversation_id": widget.conversation}
        async with self.client.stream(
            "GET", f"{API}/events", params=query, headers=headers
        ) as answer:
            self.streams += 1
            async for kind, data in events(answer):
                if self.seen is not page:
                    return
                if kind != "message":
                    continue
                number, words = data["seq"], data["text"]
                if number != max(page, default=0) + 1:
                    raise GiveUpError(f"{self.number}: {number} after {max(page, default=0)}")
                page[number] = words


@dataclass
class Operator:
    """Somebody at the inbox: hears what changed, and reads on from where they were."""

    client: httpx.AsyncClient
    link: str
    token: str
    seen: dict[str, list[str]] = field(default_factory=dict)
    streams: int = 0

    async def watch(self) -> None:
        """For ever; after each break everything is looked at once."""
        while True:
            with contextlib.suppress(httpx.TransportError):
                await self._sign_in()
                async with self.client.stream(
                    "GET", "/support/webchat/events", headers=SAME_ORIGIN
                ) as answer:
                    self.streams += 1
                    await self.look_at_all()
                    async for kind, changed in events(answer):
                        if kind == "changed" and not changed:
                            await self.look_at_all()
                        elif kind == "changed":
                            for conversation_id in changed:
                                await self._read(conversation_id)
            await asyncio.sleep(_PAUSE)

    async def _sign_in(self) -> None:
        if self.link:
            answer = await self.client.post(f"/console/link/{self.link}", headers=SAME_ORIGIN)
            if answer.status_code == 303:
                self.link = ""

    async def look_at_all(self) -> None:
        """Every conversation."""
        cursor: str | None = ""
        while cursor is not None:
            query = {"limit": "200", **({"cursor": cursor} if cursor else {})}
            page = await self._get("/api/v1/webchat/conversations", query)
            for one in page["items"]:
                if one["last_seq"] > len(self.seen.get(one["id"], [])):
                    await self._read(one["id"])
            cursor = page["next_cursor"]

    async def _read(self, conversation_id: str) -> None:
        known = self.seen.setdefault(conversation_id, [])
        page = await self._get(
            f"/api/v1/webchat/conversations/{conversation_id}", {"after": str(len(known))}
        )
        for message in page["messages"]:
            if message["seq"] != len(known) + 1:
                raise GiveUpError(f"{conversation_id}: {message['seq']} after {len(known)}")
            known.append(message["text"])

    async def _get(self, path: str, query: dict[str, str]) -> Any:
        answer = await self.client.get(
            path, params=query, headers={"Authorization": f"Bearer {self.token}"}
        )
        if answer.status_code == 503:
            raise httpx.TransportError("not available")
        if answer.status_code != 200:
            raise GiveUpError(f"{path}: {answer.status_code} {answer.text[:200]}")
        return answer.json()


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """The named events of a stream with their data (WHATWG HTML §9.2)."""
    if answer.status_code != 200:
        raise httpx.TransportError(f"a stream was answered {answer.status_code}")
    kind = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield kind, json.loads(line.removeprefix("data: "))
