"""What only a real server shows: live streams, bodies refused on their way in, stopping."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import list_keys, revoke_key
from fleetprompt.tenants.service import Tenant
from tests.api.serving import Server, serving
from tests.api.support import Keys, bearer, problem_id, signal

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own."""
    with serving(settings, tmp_path_factory.mktemp("server")) as running:
        yield running


@dataclass
class Event:
    """One server-sent event."""

    id: str = ""
    type: str = ""
    data: str = ""


@dataclass
class Tail:
    """A live tail; ``place`` is the last id heard, with an event or without."""

    response: httpx.Response
    lines: AsyncIterator[str] = field(init=False)
    place: str = ""

    def __post_init__(self) -> None:
        self.lines = self.response.aiter_lines()

    async def next(self, seconds: float = 5) -> Event | None:
        """The next event; None when the stream has ended."""
        event = Event()
        async with asyncio.timeout(seconds):
            async for line in self.lines:
                if not line and event.type:
                    return event
                name, _, value = line.partition(": ")
                if name == "id":
                    event.id = self.place = value
                elif name == "event":
                    event.type = value
                elif name == "data":
                    event.data = value
        return None

    async def place_known(self) -> str:
        """The position that the stream begins at."""
        async with asyncio.timeout(5):
            async for line in self.lines:
                if line.startswith("id: "):
                    self.place = line[4:]
                    return self.place
        raise AssertionError("the stream ended")


@asynccontextmanager
async def tailing(
    server: Server, token: str, after: str | None = None, **query: str
) -> AsyncIterator[Tail]:
    """Follow the signals."""
    headers = bearer(token) | ({"Last-Event-ID": after} if after else {})
    async with (
        httpx.AsyncClient(timeout=20) as client,
        client.stream(
            "GET", f"{server.url}/api/v1/signals/stream", params=query, headers=headers
        ) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Tail(response)


async def post(server: Server, token: str, **changed: object) -> str:
    """Post a signal; its id."""
    async with httpx.AsyncClient(headers=bearer(token)) as client:
        answer = await client.post(f"{server.url}/api/v1/signals", json=signal(**changed))
    assert answer.status_code == 201, answer.text
    found: str = answer.json()["id"]
    return found


async def test_the_live_tail_shows_what_is_committed_and_resumes_where_it_stood(
    server: Server, keys: Keys, tenant: Tenant
) -> None:
    token = await keys.user(tenant)
    await post(server, token, data={"n": "before"})
    async with tailing(server, token) as tail:
        await tail.place_known()
        first = await post(server, token)
        event = await tail.next()
        assert event is not None
        assert (event.type, json.loads(event.data)["id"]) == ("signal", first)
    missed = [await post(server, token, data={"n": n}) for n in range(3)]
    async with tailing(server, token, after=event.id) as tail:
        found = [await tail.next() for _ in range(3)]
    assert [json.loads(one.data)["id"] for one in found if one] == missed


async def test_a_filtered_tail_lets_through_what_was_asked_for(
    server: Server, keys: Keys, tenant: Tenant
) -> None:
    token = await keys.user(tenant)
    async with tailing(server, token, type="ticket.*", subject_id="7") as tail:
        await tail.place_known()
        await post(server, token, type="ticket.opened", subject_id="8")
        await post(server, token, type="other.opened", subject_id="7")
        wanted = await post(server, token, type="ticket.opened", subject_id="7")
        event = await tail.next()
        assert event is not None
        assert json.loads(event.data)["id"] == wanted


async def test_t23_a_tail_shows_nothing_of_another_tenant(
    server: Server, keys: Keys, tenant: Tenant, new_tenant: object
) -> None:
    other = await new_tenant()  # type: ignore[operator]  # a fixture that makes one
    theirs = await keys.user(other)
    own = await keys.user(tenant)
    async with tailing(server, own) as tail:
        await tail.place_known()
        await post(server, theirs)
        mine = await post(server, own)
        event = await tail.next()
        assert event is not None
        assert json.loads(event.data)["id"] == mine


async def test_a_tail_needs_a_position_of_its_own_making(
    server: Server, keys: Keys, tenant: Tenant
) -> None:
    headers = bearer(await keys.user(tenant)) | {"Last-Event-ID": "nonsense"}
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{server.url}/api/v1/signals/stream", headers=headers)
    assert problem_id(answer, 422) == "invalid"
    assert answer.json()["errors"][0]["pointer"] == "#header/last-event-id"


async def test_t29_a_tail_ends_within_two_seconds_of_its_keys_revocation(
    server: Server, keys: Keys, tenant: Tenant, database: Database
) -> None:
    token = await keys.user(tenant)
    async with tailing(server, token) as tail:
        await tail.place_known()
        async with database.platform() as session:
            for key in await list_keys(session, tenant):
                await revoke_key(session, tenant, key.id)
        revoked = time.monotonic()
        event = await tail.next()
        assert event is not None
        assert (event.type, event.data) == ("end", "unauthenticated")
        assert await tail.next() is None
        assert time.monotonic() - revoked <= 2.0


async def test_twenty_tails_hold_no_database_connection(
    server: Server, keys: Keys, tenant: Tenant, owner: Database
) -> None:
    token = await keys.user(tenant)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(_open_until_settled(server, token))
        await asyncio.sleep(1)
        async with owner.platform() as session:
            open_now = await session.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
                    " AND application_name = 'fleetprompt-api'"
                    " AND state_change < now() - interval '200 milliseconds'"
                )
            )
    assert open_now == 0


async def _open_until_settled(server: Server, token: str) -> None:
    async with tailing(server, token) as tail:
        await tail.place_known()
        await asyncio.sleep(2)


@pytest.mark.parametrize(
    ("path", "pieces"), [("/api/v1/signals", 17), ("/api/v1/keys", 2)], ids=["signals", "keys"]
)
async def test_t31_a_body_is_refused_while_it_still_comes_in(
    server: Server, keys: Keys, tenant: Tenant, path: str, pieces: int
) -> None:
    """Neither its length nor its end is known when the answer comes."""
    token = await keys.user(tenant)
    url = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    for _ in range(pieces):
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
    async with asyncio.timeout(5):
        status = await reader.readline()
        head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert status.split()[1] == b"413"
    assert b"application/problem+json" in head


async def test_the_access_log_names_route_tenant_and_key_and_no_secret(
    server: Server, keys: Keys, tenant: Tenant
) -> None:
    token = await keys.user(tenant)
    async with httpx.AsyncClient(headers=bearer(token)) as client:
        await client.get(
            f"{server.url}/api/v1/signals/{UUID(int=7)}?secret=canary-in-query",
            headers={"X-Request-Id": "find-me"},
        )
    log = server.log.read_text()
    line = next(json.loads(one) for one in log.splitlines() if '"find-me"' in one)
    assert line["message"] == "GET /api/v1/signals/{signal_id} 404"
    assert line["tenant"] == tenant.slug
    assert str(UUID(line["key_id"])) == line["key_id"]
    assert line["ms"] >= 0
    assert token not in log
    assert "canary-in-query" not in log


async def test_t46_sigterm_answers_everybody_in_flight_and_ends_streams(
    settings: Settings, keys: Keys, tenant: Tenant, database: Database, tmp_path: Path
) -> None:
    token = await keys.user(tenant)
    acknowledged: list[str] = []
    cut_off: list[str] = []
    with serving(settings, tmp_path) as running:

        async def produce(client: httpx.AsyncClient, name: int) -> None:
            for number in range(10_000):
                body = signal(dedupe_key=f"{name}-{number}")
                try:
                    answer = await client.post(f"{running.url}/api/v1/signals", json=body)
                except (httpx.ConnectError, httpx.ReadError) as error:
                    # Refused, or closed between two requests: never taken in, never acknowledged.
                    cut_off.append(type(error).__name__)
                    return
                except httpx.RemoteProtocolError as error:
                    cut_off.append(type(error).__name__)
                    return
                if answer.status_code != 201:
                    assert problem_id(answer, 503) in ("overloaded", "database-unavailable")
                    return
                acknowledged.append(answer.json()["id"])

        async with (
            tailing(running, token) as tail,
            httpx.AsyncClient(headers=bearer(token)) as client,
        ):
            await tail.place_known()
            producers = [asyncio.create_task(produce(client, name)) for name in range(16)]
            async with asyncio.timeout(60):
                while len(acknowledged) <= 50:
                    await asyncio.sleep(0.05)
            status = await asyncio.to_thread(running.terminate)
            await asyncio.gather(*producers)
            assert "Traceback" not in running.log.read_text()
    assert status in (0, -15)
    async with database.tenant(tenant.schema) as session:
        stored = set(await session.scalars(text("SELECT id FROM signals")))
    assert {UUID(one) for one in acknowledged} <= stored
    # Nobody who was in flight was left without an answer.
    assert len(stored) - len(acknowledged) == 0
