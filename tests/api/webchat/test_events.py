"""Event streams of a real server: nothing lost, nothing twice, and no database connection held."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from fleetprompt.webchat import tokens, visitors
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.sites import Sites
from tests.api.serving import Server, serving
from tests.api.webchat.widget import API, Widget, make_site

GENEROUS = dict.fromkeys(
    (
        *("bootstraps_per_address_minute", "sessions_per_address_hour", "sessions_per_site_minute"),
        *("free_sessions_per_address_hour", "messages_per_conversation_minute"),
        *("messages_per_visitor_minute", "messages_per_address_minute", "messages_per_site_minute"),
        "free_messages_per_address_minute",
    ),
    100000,
)

Event = tuple[str, int | None, dict[str, Any]]


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The application with 5 database connections, the same for all tests here."""
    folder = tmp_path_factory.mktemp("server")
    with serving(settings, folder, FLEETPROMPT_DATABASE_POOL_SIZE="5") as found:
        yield found


@pytest.fixture
async def busy_site(database: Database, settings: Settings, tenant: Tenant) -> ChatSite:
    """A site that takes much."""
    return await make_site(database, settings, tenant, limits=GENEROUS)


@asynccontextmanager
async def page(server: Server, site: ChatSite) -> AsyncIterator[Widget]:
    """A visitor's page with a conversation."""
    limits = httpx.Limits(max_connections=600, max_keepalive_connections=100)
    async with httpx.AsyncClient(base_url=server.url, timeout=30, limits=limits) as client:
        widget = Widget(client, site.site_key)
        await widget.begin()
        yield widget


@asynccontextmanager
async def stream(widget: Widget, after: int = 0) -> AsyncIterator[AsyncIterator[Event]]:
    """The events of the widget's conversation."""
    headers = widget.sent_headers(**({"Last-Event-ID": str(after)} if after else {}))
    query = {"conversation_id": widget.conversation}
    async with widget.client.stream(
        "GET", f"{API}/events", params=query, headers=headers
    ) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-store"
        assert "content-encoding" not in answer.headers
        assert answer.headers["access-control-allow-origin"] == widget.origin
        yield _parsed(answer)


async def _parsed(answer: httpx.Response) -> AsyncIterator[Event]:
    kind, number = "", None
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind, number = value, None
        elif name == "id":
            number = int(value)
        elif name == "data":
            yield kind, number, json.loads(value)


async def messages_until(
    events: AsyncIterator[Event], last: int, within: float = 30
) -> list[int | None]:
    """The numbers of messages up to ``last``, which come within so many seconds."""
    found: list[int | None] = []
    async with asyncio.timeout(within):
        async for kind, number, data in events:
            if kind == "message":
                assert number == data["seq"]
                found.append(number)
                if number == last:
                    break
    return found


async def test_t8_nothing_falls_between_history_and_stream_while_a_writer_hammers(
    server: Server, busy_site: ChatSite
) -> None:
    async with page(server, busy_site) as widget:
        count = 60

        async def write() -> None:
            for number in range(count):
                assert (await widget.say(f"m{number}")).status_code == 201

        async def follow(delay: float) -> list[int | None]:
            await asyncio.sleep(delay)
            async with stream(widget) as events:
                return await messages_until(events, count)

        writing = asyncio.create_task(write())
        seen = await asyncio.gather(*(follow(delay) for delay in (0, 0.05, 0.1, 0.2, 0.4)))
        await writing
        assert seen == [[*range(1, count + 1)]] * 5


async def test_a_stream_begins_with_the_state_and_resumes_behind_the_last_event(
    server: Server, busy_site: ChatSite
) -> None:
    """Traps 51 and 52: through all of the application event by event, uncompressed and not held back."""
    async with page(server, busy_site) as widget:
        for number in range(3):
            await widget.say(f"m{number}")
        async with stream(widget, after=2) as events:
            first = await anext(events)
            assert (first[0], first[2]["last_seq"], first[2]["status"]) == (
                "conversation",
                3,
                "open",
            )
            assert await messages_until(events, 3) == [3]
            await widget.post("end", {"conversation_id": widget.conversation})
            async with asyncio.timeout(10):
                async for kind, _, data in events:
                    if kind == "conversation" and data["status"] == "closed":
                        break


async def test_who_is_forgotten_has_streams_ended(server: Server, busy_site: ChatSite) -> None:
    async with page(server, busy_site) as widget:
        await widget.say("hello")
        async with stream(widget) as events:
            await messages_until(events, 1)
            await widget.post("erase")
            async with asyncio.timeout(10):
                rest = [event async for event in events]
        assert rest[-1][0] == "conversation"
        assert rest[-1][2]["status"] == "erased"


async def test_t9_notices_hold_ids_and_never_words(
    server: Server, busy_site: ChatSite, owner: Database
) -> None:
    heard: list[str] = []
    async with await psycopg.AsyncConnection.connect(owner.url, autocommit=True) as connection:
        await connection.execute("LISTEN fleetprompt_webchat")
        async with page(server, busy_site) as widget:
            answer = await widget.say("😀" * 4000)
            assert answer.status_code == 201
            async with asyncio.timeout(10):
                async for notice in connection.notifies():
                    heard.append(notice.payload)
                    if widget.conversation in notice.payload and len(heard) > 1:
                        break
    assert heard
    assert not [one for one in heard if "😀" in one or "\\u" in one or len(one) > 1000]


async def test_t10_fifty_streams_hold_no_connection_of_a_pool_of_five(
    server: Server, busy_site: ChatSite
) -> None:
    async with page(server, busy_site) as widget:
        pages = [Widget(widget.client, busy_site.site_key) for _ in range(50)]
        for one in pages:
            await one.begin()
        ready = asyncio.Semaphore(0)

        async def follow(one: Widget) -> list[int | None]:
            async with stream(one) as events:
                await anext(events)
                ready.release()
                return await messages_until(events, 1)

        following = [asyncio.create_task(follow(one)) for one in pages]
        for _ in pages:
            await ready.acquire()
        # Were a connection held by each stream, none would be left for this.
        assert (await widget.say("hello")).status_code == 201
        answers = await asyncio.gather(*(one.say("to me") for one in pages))
        assert {answer.status_code for answer in answers} == {201}
        assert await asyncio.gather(*following) == [[1]] * 50


async def test_t11_a_stream_says_that_its_token_ends_and_the_next_one_goes_on(
    server: Server, busy_site: ChatSite, settings: Settings, database: Database
) -> None:
    async with page(server, busy_site) as widget:
        await widget.say("hello")
        sites = Sites(database, Vault(database, load_master_key(settings)), 0)
        site = await sites.find(busy_site.site_key)
        now = system_clock()
        claims = tokens.Claims(
            site=site.id,
            visitor=visitors.visitor_id(site.visitor_secret, widget.visitor or "", now),
            origin=widget.origin,
            issued_at=int(now.timestamp()),
            expires_at=int(now.timestamp()) + 7,
        )
        widget.token = tokens.sign(claims, site.signing)
        async with stream(widget) as events:
            async with asyncio.timeout(15):
                kinds = [kind async for kind, _, _ in events]
        assert kinds == ["conversation", "message", "token"]
        await widget.bootstrap()
        await widget.say("again")
        async with stream(widget, after=1) as events:
            assert await messages_until(events, 2) == [2]


async def test_a_long_poll_answers_when_there_is_something_and_else_when_its_time_is_over(
    server: Server, busy_site: ChatSite
) -> None:
    async with page(server, busy_site) as widget:
        of: dict[str, Any] = {"conversation_id": widget.conversation}
        empty = await widget.get("messages", **of, after=0, wait=0.2)
        assert empty.json()["messages"] == []
        waiting = asyncio.create_task(widget.get("messages", **of, after=0, wait=20))
        await asyncio.sleep(0.3)
        started = time.monotonic()
        await widget.say("hello")
        found = await waiting
        assert time.monotonic() - started < 10
        assert [m["text"] for m in found.json()["messages"]] == ["hello"]
        waiting = asyncio.create_task(widget.get("messages", **of, after=1, wait=20, status="open"))
        await asyncio.sleep(0.3)
        await widget.post("end", of)
        assert (await waiting).json()["conversation"]["status"] == "closed"


async def test_a_message_taken_by_one_process_is_streamed_by_another_until_that_is_told_to_stop(
    server: Server, busy_site: ChatSite, settings: Settings, tmp_path: Path
) -> None:
    with serving(settings, tmp_path) as second:
        async with (
            page(server, busy_site) as widget,
            httpx.AsyncClient(base_url=second.url, timeout=30) as elsewhere,
        ):
            there = Widget(elsewhere, busy_site.site_key)
            there.token, there.conversation = widget.token, widget.conversation
            async with stream(there) as events:
                await anext(events)
                await widget.say("across")
                assert await messages_until(events, 1) == [1]
                stopping = asyncio.create_task(asyncio.to_thread(second.terminate))
                async with asyncio.timeout(60):
                    assert {kind async for kind, _, _ in events} <= {"conversation"}
                assert await stopping in (0, -15)
