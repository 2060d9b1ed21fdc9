"""The chat with many open streams: how soon an operator reads what a visitor wrote.

One server process, as many visitors as streams, and an operator whose browser follows the inbox. A message's
time runs from before it is sent until the operator has read its text over the API. The connections to
PostgreSQL are counted while all streams are open and nothing is said.
"""

import asyncio
import base64
import contextlib
import json
import os
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import httpx
import psycopg
from rich.console import Console

from bench.platform import Bench, platform, serving
from bench.report import Bound
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.tenants.members import add_member
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from fleetprompt.webchat.registration import register
from fleetprompt.webchat.site_settings import Limits, SiteSettings

STREAMS = 500
_PER_SECOND = 20  # messages of all visitors together
_ORIGIN = "https://shop.example"
_API = "/api/webchat/v1"
_LOOKS = 40  # at the connections, over two seconds
_MANY = 1_000_000
# Nobody is held back here: what is measured is the way, not the limits.
_LIMITS = Limits(**dict.fromkeys(Limits.model_fields, _MANY))


@dataclass(frozen=True)
class Visitor:
    """Who has a conversation."""

    headers: dict[str, str]
    conversation_id: str


def measure(console: Console, seconds: float, streams: int = STREAMS) -> list[Bound]:
    """Streams, then silence, then messages for so many seconds."""
    with platform() as bench, serving(bench, "fleetprompt_api.app:app") as port:
        console.print(f"web chat: {streams} streams, {_PER_SECOND} messages a second")
        return asyncio.run(_measure(bench, port, seconds, streams))


async def _measure(bench: Bench, port: int, seconds: float, number: int) -> list[Bound]:
    site_key, link = await _prepare(bench)
    limits = httpx.Limits(max_connections=64)
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, limits=limits) as client,
        contextlib.AsyncExitStack() as streams,
    ):
        visitors = [await _visitor(client, site_key) for _ in range(number)]
        for visitor in visitors:
            path = f"{_API}/events?conversation_id={visitor.conversation_id}"
            await streams.enter_async_context(_drained(port, path, visitor.headers))
        in_use = await asyncio.to_thread(_in_use, bench)
        await client.post(f"/console/link/{link}", headers={"Sec-Fetch-Site": "same-origin"})
        took = await _talk(client, bench.token, visitors, seconds)
    took.sort()
    return [
        Bound(
            f"visitor → operator with {number} streams open, p95 of {len(took)} messages",
            took[int(len(took) * 0.95)] * 1000,
            "ms",
            300,
            "median",
            statistics.median(took) * 1000,
        ),
        Bound(
            f"connections to PostgreSQL at work while {number} streams wait, median of {_LOOKS} looks",
            in_use,
            "connections",
            0,
        ),
    ]


async def _prepare(bench: Bench) -> tuple[str, str]:
    """A site's key, and a link that signs a member in to the console."""
    settings: Settings = bench.settings
    async with Database.application(settings) as database:
        data_key = await Vault(database, load_master_key(settings)).current_key(bench.tenant)
        async with database.tenant(bench.tenant.schema) as session:
            site, _ = await register(
                session,
                bench.tenant,
                data_key,
                site_id=new_id(),
                name="Shop",
                origins=[_ORIGIN],
                settings=SiteSettings(limits=_LIMITS),
            )
        async with database.platform() as session:
            member = await add_member(
                session, bench.tenant, email="anna@example.org", role="member"
            )
        return site.site_key, await Sessions(database, settings).make_link(
            bench.tenant, member.user_id
        )


async def _visitor(client: httpx.AsyncClient, site_key: str) -> Visitor:
    headers = {"Origin": _ORIGIN, "Webchat-Site": site_key}
    begun = (await client.post(f"{_API}/bootstrap", json={}, headers=headers)).json()
    headers["Authorization"] = f"Bearer {begun['token']}"
    session = (await client.post(f"{_API}/sessions", json={}, headers=headers)).json()
    return Visitor(headers, session["conversation"]["id"])


@contextlib.asynccontextmanager
async def _drained(port: int, path: str, headers: dict[str, str]) -> AsyncIterator[None]:
    """An open stream that is read and not looked at; by hand, so that its client costs next to nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    status = await reader.readline()
    if b" 200 " not in status:
        raise RuntimeError(f"a stream was answered {status!r}")
    # The conversation's state is the first event; with it the stream is subscribed.
    await reader.readuntil(b"event: conversation")

    async def drain() -> None:
        while await reader.read(65536):
            pass

    task = asyncio.create_task(drain())
    try:
        yield
    finally:
        task.cancel()
        writer.close()
        await asyncio.gather(task, return_exceptions=True)


def _in_use(bench: Bench) -> float:
    """How many of the API's connections are in a transaction or a statement, at the middle look."""
    found = []
    with psycopg.connect(bench.server.owner_url, autocommit=True) as connection:
        for _ in range(_LOOKS):
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle'"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchone()
            found.append(int(row[0]) if row else 0)
            time.sleep(2 / _LOOKS)
    return statistics.median(found)


async def _talk(
    client: httpx.AsyncClient, token: str, visitors: list[Visitor], seconds: float
) -> list[float]:
    """Seconds from each message's sending to the operator's having read it."""
    sent: dict[str, float] = {}
    took: dict[str, float] = {}
    read: dict[str, int] = {}
    watching, seen = asyncio.Event(), asyncio.Event()

    async def until_taken(request: httpx.Request) -> httpx.Response:
        """Once more after a moment where the server has too much to do, as browsers do it."""
        answer = await client.send(request)
        if answer.status_code != 503:
            return answer.raise_for_status()
        await asyncio.sleep(float(answer.headers["retry-after"]))
        return await until_taken(request)

    async def look(conversation_id: str) -> None:
        answer = await until_taken(
            client.build_request(
                "GET",
                f"/api/v1/webchat/conversations/{conversation_id}",
                params={"after": read.get(conversation_id, 0)},
                headers={"Authorization": f"Bearer {token}"},
            )
        )
        for message in answer.json()["messages"]:
            read[conversation_id] = max(read.get(conversation_id, 0), message["seq"])
            took.setdefault(message["text"], time.perf_counter() - sent[message["text"]])
            seen.set()

    async def watch() -> None:
        async with (
            asyncio.TaskGroup() as looks,
            client.stream("GET", "/support/webchat/events") as answer,
        ):
            watching.set()
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    for conversation_id in json.loads(line.removeprefix("data: ")):
                        looks.create_task(look(conversation_id))

    async def say(visitor: Visitor) -> None:
        words = base64.b64encode(os.urandom(12)).decode()
        body = {
            "conversation_id": visitor.conversation_id,
            "client_message_id": str(uuid4()),
            "text": words,
        }
        sent[words] = time.perf_counter()
        await until_taken(
            client.build_request("POST", f"{_API}/messages", json=body, headers=visitor.headers)
        )

    task = asyncio.create_task(watch())
    await watching.wait()
    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * _PER_SECOND)):
            group.create_task(say(visitors[number % len(visitors)]))
            await asyncio.sleep(1 / _PER_SECOND)
    try:
        async with asyncio.timeout(60):
            while len(took) < len(sent):
                seen.clear()
                await seen.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return list(took.values())
