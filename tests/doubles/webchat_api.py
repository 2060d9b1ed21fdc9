"""The web chat API of docs/reference/webchat-api.md in memory, for the widget's browser tests.

Its faults are the test's: a message is stored and its answer lost, a stream is cut, nobody answers.
"""

import asyncio
import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.doubles.http_server import Answer, HttpServer, Json, Request, send

SITE_KEY = "fp_pub_widgettest"
API = "/api/webchat/v1/"
TYPES = {".js": "text/javascript; charset=utf-8", ".html": "text/html; charset=utf-8"}


@dataclass(eq=False)
class Conversation:
    """One visitor's conversation."""

    id: str
    visitor: str
    status: str = "open"
    agent: str | None = None
    consent: str | None = None
    contact: Json = field(default_factory=dict)
    identity: str | None = None
    page_url: str | None = None
    language: str | None = None
    rating: int | None = None
    messages: list[Json] = field(default_factory=list)

    def wire(self) -> Json:
        return {
            "id": self.id,
            "status": self.status,
            "last_seq": len(self.messages),
            "agent": self.agent,
            "contact": bool(self.contact.get("email")),
            "rated": self.rating is not None,
        }

    def add(self, role: str, text: str, author: str | None, client: str | None) -> Json:
        message = {
            "seq": len(self.messages) + 1,
            "id": str(uuid.uuid4()),
            "client_message_id": client,
            "role": role,
            "author": author,
            "text": text,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self.messages.append(message)
        return message


def default_site() -> Json:
    return {
        "title": "Nordwind Shop",
        "greeting": "Hello! How can we help you today?",
        "hours": {"open": True, "text": "We usually answer within minutes", "away": None},
        "theme": {"accent": "#1f5eff", "on_accent": "#ffffff", "scheme": "auto", "side": "end"},
        "consent": {
            "version": "1",
            "text": "We store what you write here to answer you.",
            "link": "https://shop.example/privacy",
        },
        "prechat": {"name": "off", "email": "off"},
        "ask_contact": False,
        "rating": True,
    }


class WebchatApi(HttpServer):
    """The API, its faults driven by the test: every attribute may be changed at any time."""

    def __init__(self, files: Path, port: int = 0) -> None:
        super().__init__(port)
        self.files = files
        self.origins: set[str] = set()
        self.site = default_site()
        self.conversations: dict[str, Conversation] = {}
        self.tokens: dict[str, tuple[str, str, float]] = {}
        self.token_life = 900.0
        self.bootstraps = 0
        self.ping = 15.0
        self.typed: list[str] = []
        self.erased: list[str] = []
        self.sent: list[str] = []
        """Messages as they were asked for, each try."""
        self.drop_acknowledgements = 0
        self.faults: list[tuple[str, Answer]] = []
        """Answers to give instead, by the end of the path; each is used once."""
        self.work_bits: int | None = None
        self.buffers_streams = False
        self.silent = False
        """Streams stay open and say nothing more."""
        self.tells = True
        """Streams and polls tell what is stored; otherwise only the answer to a message does."""
        self.delay = 0.0
        self._streams: set[tuple[asyncio.Queue[tuple[str, Json] | None], Conversation]] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    # What operators do

    def only(self) -> Conversation:
        """The one conversation that there is."""
        [found] = self.conversations.values()
        return found

    def reply(self, *texts: str, author: str = "Anna") -> None:
        found = list(self.conversations.values())[-1]

        async def say() -> None:
            found.agent = author
            for text in texts:
                self._tell(found, "message", found.add("agent", text, author, None))

        self.run(say())

    def typing(self, author: str = "Anna") -> None:
        found = list(self.conversations.values())[-1]

        async def say() -> None:
            self._tell(found, "typing", {"author": author})

        self.run(say())

    def close_conversation(self) -> None:
        found = list(self.conversations.values())[-1]

        async def say() -> None:
            found.status = "closed"
            self._tell(found, "conversation", found.wire())

        self.run(say())

    def cut_streams(self) -> None:
        async def cut() -> None:
            for queue, _ in self._streams:
                queue.put_nowait(None)

        self.run(cut())

    def end_tokens(self) -> None:
        """No token holds any longer; streams say so and end."""

        async def end() -> None:
            self.tokens.clear()
            for queue, _ in self._streams:
                queue.put_nowait(("token", {}))
                queue.put_nowait(None)

        self.run(end())

    def fault(
        self, path: str, status: int, problem: str = "", retry: int = 0, **extra: Any
    ) -> None:
        """The next request whose path ends so is answered with this problem."""
        answer = problem_answer(status, problem or "internal", **extra)
        if retry:
            answer.headers["Retry-After"] = str(retry)
        self.faults.append((path, answer))

    def texts(self) -> list[str]:
        """Every visitor's message that is stored."""
        return [
            message["text"]
            for conversation in self.conversations.values()
            for message in conversation.messages
            if message["role"] == "visitor"
        ]

    def api_requests(self) -> list[Request]:
        return [
            one for one in self.requests if one.path.startswith(API) and one.method != "OPTIONS"
        ]

    # HTTP

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> Answer | None:
        if request.path.startswith("/widget/v1/"):
            return self._file(request.path.rpartition("/")[2])
        if request.path.startswith("/chat/"):
            return Answer(
                200, b"<title>Chat</title><form></form>", {"Content-Type": TYPES[".html"]}
            )
        origin = request.headers.get("origin", "")
        cors = {
            "Access-Control-Allow-Origin": origin,
            "Vary": "Origin",
            "Access-Control-Expose-Headers": "Retry-After, X-Request-Id",
        }
        if request.method == "OPTIONS":
            cors["Access-Control-Allow-Methods"] = "GET, POST"
            cors["Access-Control-Allow-Headers"] = (
                "Authorization, Content-Type, Last-Event-ID, Webchat-Challenge, Webchat-Site"
            )
            return Answer(204, b"", cors)
        if self.delay:
            await asyncio.sleep(self.delay)
        answer = await self._api(request, origin, cors, writer)
        if answer is not None:
            answer.headers |= {**cors, "Cache-Control": "no-store"}
        return answer

    def _file(self, name: str) -> Answer:
        path = self.files / name
        if not path.is_file():
            return Answer(404)
        headers = {
            "Content-Type": TYPES[path.suffix],
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "X-Content-Type-Options": "nosniff",
        }
        return Answer(200, path.read_bytes(), headers)

    async def _api(
        self, request: Request, origin: str, cors: dict[str, str], writer: asyncio.StreamWriter
    ) -> Answer | None:
        for fault in self.faults:
            if request.path.endswith(fault[0]):
                self.faults.remove(fault)
                return fault[1]
        if request.headers.get("webchat-site") != SITE_KEY:
            return problem_answer(404, "not-found")
        if origin not in self.origins:
            return problem_answer(403, "origin-not-allowed")
        name = request.path.removeprefix(API)
        if name == "bootstrap":
            return self._bootstrap(request.json(), origin)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return problem_answer(401, "token-invalid" if token else "token-required")
        visitor, bound, expires = self.tokens[token]
        if time.time() > expires:
            return problem_answer(401, "token-expired")
        if bound != origin:
            return problem_answer(401, "token-origin-mismatch")
        if name == "events":
            return await self._events(request, visitor, expires, cors, writer)
        if name == "messages" and request.method == "GET":
            return await self._history(request, visitor)
        body = request.json()
        if name in ("sessions", "messages") and (refused := self._challenge(request)):
            return refused
        handlers: dict[str, Callable[[Json, str], Answer]] = {
            "sessions": self._session,
            "messages": self._message,
            "typing": self._typing,
            "contact": self._contact,
            "end": self._end,
            "rating": self._rating,
            "erase": self._erase,
        }
        if name not in handlers:
            return problem_answer(404, "not-found")
        return handlers[name](body, visitor)

    def _bootstrap(self, body: Json, origin: str) -> Answer:
        self.bootstraps += 1
        secret = body.get("visitor")
        if not secret or secret in self.erased:
            secret = f"v1.{secrets.token_urlsafe(16)}"
        token = secrets.token_urlsafe(24)
        self.tokens[token] = (secret, origin, time.time() + self.token_life)
        mine = [one for one in self.conversations.values() if one.visitor == secret]
        return answer_json(
            200,
            {
                "token": token,
                "expires_in": self.token_life,
                "visitor": secret,
                "site": self.site,
                "conversation": mine[-1].wire() if mine else None,
            },
        )

    def _challenge(self, request: Request) -> Answer | None:
        if self.work_bits is None:
            return None
        proof = request.headers.get("webchat-challenge", "")
        digest = int.from_bytes(hashlib.sha256(proof.encode()).digest())
        if proof and digest >> (256 - self.work_bits) == 0:
            return None
        challenge = {"kind": "work", "nonce": secrets.token_urlsafe(12), "bits": self.work_bits}
        return problem_answer(403, "challenge-required", challenge=challenge)

    def _consent(self, version: str | None) -> Answer | None:
        asked = self.site["consent"]
        if asked is None or version == asked["version"]:
            return None
        if version is None:
            return problem_answer(403, "consent-required")
        return problem_answer(409, "consent-stale", consent=asked)

    def _session(self, body: Json, visitor: str) -> Answer:
        if refused := self._consent(body.get("consent")):
            return refused
        if body.get("identity") == "expired":
            return problem_answer(403, "identity-expired")
        mine = [
            one
            for one in self.conversations.values()
            if one.visitor == visitor and one.status == "open"
        ]
        found = mine[0] if mine else Conversation(str(uuid.uuid4()), visitor)
        self.conversations[found.id] = found
        found.consent = body.get("consent")
        found.page_url = body.get("page_url")
        found.language = body.get("language")
        found.contact |= named(body.get("contact") or {})
        found.identity = body.get("identity") or found.identity
        return answer_json(
            200 if mine else 201, {"conversation": found.wire(), "contact": found.contact}
        )

    def _mine(self, number: str | None, visitor: str) -> Conversation | None:
        found = self.conversations.get(number or "")
        return found if found and found.visitor == visitor else None

    def _message(self, body: Json, visitor: str) -> Answer:
        found = self._mine(body.get("conversation_id"), visitor)
        if found is None:
            return problem_answer(404, "not-found")
        client, text = body["client_message_id"], body["text"]
        uuid.UUID(client)
        self.sent.append(text)
        stored = [one for one in found.messages if one["client_message_id"] == client]
        if stored and stored[0]["text"] != text:
            return problem_answer(409, "message-mismatch")
        if not stored:
            if refused := self._consent(found.consent):
                return refused
            if found.status != "open":
                return problem_answer(409, "conversation-closed")
            if len(text) > 4000:
                return problem_answer(422, "invalid")
        message = stored[0] if stored else found.add("visitor", text, None, client)
        if not stored:
            self._tell(found, "message", message)
        answer = answer_json(
            200 if stored else 201, {"message": message, "duplicate": bool(stored)}
        )
        if self.drop_acknowledgements > 0:
            self.drop_acknowledgements -= 1
            answer.drop = True
        return answer

    def _typing(self, body: Json, visitor: str) -> Answer:
        self.typed.append(body["conversation_id"])
        return Answer(204)

    def _contact(self, body: Json, visitor: str) -> Answer:
        found = self._mine(body.get("conversation_id"), visitor)
        if found is None:
            return problem_answer(404, "not-found")
        found.contact |= named(body)
        return answer_json(200, {"contact": found.contact})

    def _end(self, body: Json, visitor: str) -> Answer:
        found = self._mine(body.get("conversation_id"), visitor)
        if found is None:
            return problem_answer(404, "not-found")
        found.status = "closed"
        self._tell(found, "conversation", found.wire())
        return answer_json(200, {"conversation": found.wire()})

    def _rating(self, body: Json, visitor: str) -> Answer:
        found = self._mine(body.get("conversation_id"), visitor)
        if found is None:
            return problem_answer(404, "not-found")
        found.rating = int(body["rating"])
        return Answer(204)

    def _erase(self, body: Json, visitor: str) -> Answer:
        self.erased.append(visitor)
        for found in self.conversations.values():
            if found.visitor == visitor:
                found.status, found.contact = "erased", {}
                for message in found.messages:
                    message["text"] = None
                self._tell(found, "conversation", found.wire())
        return Answer(204)

    async def _history(self, request: Request, visitor: str) -> Answer:
        found = self._mine(request.query.get("conversation_id"), visitor)
        if found is None:
            return problem_answer(404, "not-found")
        after = int(request.query["after"])
        ends = time.time() + float(request.query.get("wait", "0"))
        status = request.query.get("status", found.status)
        while len(found.messages) <= after and found.status == status and time.time() < ends:
            await asyncio.sleep(0.02)
        new = found.messages[after:] if self.tells else []
        return answer_json(
            200, {"conversation": found.wire(), "messages": new[:200], "more": len(new) > 200}
        )

    async def _events(
        self,
        request: Request,
        visitor: str,
        expires: float,
        cors: dict[str, str],
        writer: asyncio.StreamWriter,
    ) -> Answer | None:
        found = self._mine(request.query.get("conversation_id"), visitor)
        if found is None:
            return problem_answer(404, "not-found")
        queue: asyncio.Queue[tuple[str, Json] | None] = asyncio.Queue()
        stream = (queue, found)
        self._streams.add(stream)
        try:
            headers = {**cors, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            if self.buffers_streams:
                await asyncio.sleep(3600)
            await send(writer, Answer(200, b"", headers), streams=True)
            queue.put_nowait(("conversation", found.wire()))
            for message in found.messages[int(request.headers.get("last-event-id") or 0) :]:
                queue.put_nowait(("message", message))
            sent = 0
            while True:
                try:
                    wait = max(0.0, min(self.ping, expires - 0.5 - time.time()))
                    item = await asyncio.wait_for(queue.get(), wait)
                except TimeoutError:
                    if time.time() >= expires - 0.6:
                        writer.write(b"event: token\ndata: {}\n\n")
                        await writer.drain()
                        return None
                    if not self.silent:
                        writer.write(b": ping\n\n")
                        await writer.drain()
                    continue
                if item is None:
                    return None
                kind, data = item
                if kind == "message" and (data["seq"] <= sent or not self.tells):
                    continue
                number = f"id: {data['seq']}\n" if kind == "message" else ""
                sent = data["seq"] if kind == "message" else sent
                text = f"event: {kind}\n{number}data: {json.dumps(data)}\n\n"
                writer.write(text.encode())
                await writer.drain()
                if kind == "conversation" and data["status"] == "erased":
                    return None
        finally:
            self._streams.discard(stream)

    def _tell(self, conversation: Conversation, kind: str, data: Json) -> None:
        for queue, found in self._streams:
            if found is conversation and not self.silent:
                queue.put_nowait((kind, data))


def named(contact: Json) -> Json:
    """Name and address; other fields are ignored, and an empty one is the same as none."""
    return {name: contact[name] for name in ("name", "email") if contact.get(name)}


def answer_json(status: int, body: Json) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def problem_answer(status: int, problem: str, **extra: Any) -> Answer:
    body = {
        "type": f"https://fleetprompt.example/docs/problems#{problem}",
        "status": status,
        **extra,
    }
    answer = answer_json(status, body)
    answer.headers["Content-Type"] = "application/problem+json"
    return answer
