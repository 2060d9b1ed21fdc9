"""Connectors fetching, keeping and reporting directives over HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text, update

from fleetprompt.db.engine import Database
from fleetprompt.directives import types as directive_registry
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import directive_types
from fleetprompt.directives.wake import notify_directives
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import list_keys, revoke_key
from fleetprompt.tenants.keys import Scope
from fleetprompt.tenants.models import ApiKey
from fleetprompt.tenants.service import Tenant
from tests.api.serving import serving
from tests.api.support import Keys, bearer, calling, problem_id
from tests.directives.connector_types import connector_directive

POLL = "/api/edge/v1/directives"


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The connector's type is known to the platform as a package's would be."""
    modules = ("fleetprompt.packages.handlers", "tests.directives.connector_types")
    monkeypatch.setattr(directive_registry, "_PLATFORM_MODULES", modules)
    directive_types.cache_clear()
    yield
    monkeypatch.undo()
    directive_types.cache_clear()


@pytest.fixture
async def laptop(app: FastAPI, keys: Keys, tenant: Tenant) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the key of the connector "laptop"."""
    async with calling(app, await keys.connector(tenant)) as client:
        yield client


async def asked(database: Database, tenant: Tenant, **rest: Any) -> str:
    """A new directive for a connector, told to whoever waits; its id."""
    async with database.tenant(tenant.schema) as session:
        directive = await connector_directive(session, tenant, **rest)
    await notify_directives(database)
    return str(directive.id)


async def polled(client: httpx.AsyncClient, wait: int = 0, **query: Any) -> list[dict[str, Any]]:
    """What a poll was given."""
    answer = await client.get(POLL, params={"status": "pending", "wait": wait, **query}, timeout=40)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()
    return found


def lease_of(directive: dict[str, Any]) -> dict[str, Any]:
    """What every word about an attempt must name."""
    return {"attempt": directive["attempt"], "lease_token": directive["lease_token"]}


async def test_a_directive_is_fetched_kept_and_reported(
    laptop: httpx.AsyncClient, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    directive_id = await asked(database, tenant, params={"words": "hi"}, correlation_id="c-1")
    (held,) = await polled(laptop)
    assert held == {
        "id": directive_id,
        "type": "test.carry",
        "params": {"words": "hi"},
        "attempt": 1,
        "lease_token": held["lease_token"],
        "lease_expires_at": held["lease_expires_at"],
        "correlation_id": "c-1",
        "created_at": held["created_at"],
    }
    assert await polled(laptop) == []
    kept = await laptop.post(f"{POLL}/{directive_id}/ack", json=lease_of(held))
    assert kept.status_code == 200, kept.text
    assert kept.json()["lease_expires_at"] > held["lease_expires_at"]
    said = {**lease_of(held), "outcome": "succeeded", "result": {"sent": 1}}
    done = await laptop.post(f"{POLL}/{directive_id}/result", json=said)
    assert done.status_code == 200, done.text
    assert (done.json()["state"], done.json()["available_at"]) == ("succeeded", None)
    read = (await owner_client.get(f"/api/v1/directives/{directive_id}")).json()
    assert (read["state"], read["result"]) == ("succeeded", {"sent": 1})
    assert read["target"] == "laptop"
    assert held["lease_token"] not in str(read)


async def test_t42_twenty_polls_that_wait_lease_each_directive_once(
    laptop: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    polls = [asyncio.create_task(polled(laptop, wait=10, limit=1)) for _ in range(20)]
    await asyncio.sleep(0.3)
    made = [await asked(database, tenant) for _ in range(20)]
    found = [one for some in await asyncio.gather(*polls) for one in some]
    rest = await polled(laptop, limit=50)
    fetched = [one["id"] for one in [*found, *rest]]
    assert sorted(fetched) == sorted(made)
    assert len(found) >= 15, "those who wait go on until there is something for them"
    assert {one["attempt"] for one in [*found, *rest]} == {1}


async def test_t43_a_result_that_is_posted_twice_gets_the_first_answer(
    laptop: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    url = f"{POLL}/{await asked(database, tenant)}/result"
    (held,) = await polled(laptop)
    said = {**lease_of(held), "outcome": "succeeded", "result": {"sent": 1}}
    first, *again = [await laptop.post(url, json=said) for _ in range(3)]
    assert first.status_code == 200, first.text
    assert [one.json() for one in again] == [first.json()] * 2
    other = await laptop.post(url, json={**said, "result": {"sent": 2}})
    assert problem_id(other, 409) == "conflict"
    stale = await laptop.post(url, json={**said, "lease_token": str(uuid4())})
    assert problem_id(stale, 409) == "stale-lease"


async def test_t12_a_lease_that_ran_out_and_was_given_on_is_stale(
    laptop: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    url = f"{POLL}/{await asked(database, tenant)}"
    (lost,) = await polled(laptop)
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            update(Directive).values(lease_expires_at=text("now() - interval '1 second'"))
        )
    # Nobody tells of a lease that runs out: a poll that waits finds it by itself.
    (held,) = await polled(laptop, wait=5)
    assert held["attempt"] == 2
    said = {"outcome": "succeeded"}
    assert problem_id(await laptop.post(f"{url}/ack", json=lease_of(lost)), 409) == "stale-lease"
    late = await laptop.post(f"{url}/result", json={**lease_of(lost), **said})
    assert problem_id(late, 409) == "stale-lease"
    assert (await laptop.post(f"{url}/ack", json=lease_of(held))).status_code == 200
    done = await laptop.post(f"{url}/result", json={**lease_of(held), **said})
    assert done.json()["state"] == "succeeded"


async def test_a_poll_that_waits_answers_within_200_ms_of_a_request(
    laptop: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    took = []
    for _ in range(5):
        poll = asyncio.create_task(polled(laptop, wait=10))
        await asyncio.sleep(0.4)
        assert not poll.done()
        directive_id = await asked(database, tenant)
        committed = time.monotonic()
        (held,) = await poll
        took.append(time.monotonic() - committed)
        assert held["id"] == directive_id
    assert sorted(took)[2] <= 0.2, took


async def test_waiting_ends_when_its_time_is_over(laptop: httpx.AsyncClient) -> None:
    started = time.monotonic()
    assert await polled(laptop, wait=1) == []
    assert 1.0 <= time.monotonic() - started <= 2.0


async def test_many_polls_that_wait_hold_no_database_session(
    laptop: httpx.AsyncClient, app: FastAPI, settings: Settings, tenant: Tenant
) -> None:
    assert settings.database_pool_size < 60
    polls = [asyncio.create_task(polled(laptop, wait=15)) for _ in range(60)]
    held = app.state.platform.database.engine.pool
    bell = app.state.platform.doorbell
    async with asyncio.timeout(14):
        # All of them wait at once, and while they do there is a moment without any session.
        while bell.number_waiting(tenant.schema) < 60 or held.checkedout():
            assert not any(poll.done() for poll in polls)
            await asyncio.sleep(0.01)
    assert await asyncio.gather(*polls) == [[]] * 60


async def test_more_polls_than_a_tenant_may_have_waiting_are_refused(
    laptop: httpx.AsyncClient, app: FastAPI, tenant: Tenant
) -> None:
    bell = app.state.platform.doorbell
    places = [bell.waiting(tenant.schema, f"c{number}") for number in range(100)]
    for one in places:
        one.__enter__()
    assert problem_id(await laptop.get(POLL), 429) == "rate-limited"
    places[0].__exit__(None, None, None)
    assert await polled(laptop) == []
    for one in places[1:]:
        one.__exit__(None, None, None)


async def test_t29_waiting_ends_when_the_key_is_revoked(
    laptop: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    poll = asyncio.create_task(laptop.get(POLL, params={"wait": 20}, timeout=30))
    await asyncio.sleep(0.3)
    async with database.platform() as session:
        for key in await list_keys(session, tenant):
            await revoke_key(session, tenant, key.id)
    revoked = time.monotonic()
    assert problem_id(await poll, 401) == "unauthenticated"
    assert time.monotonic() - revoked <= 2.0


@pytest.mark.slow
async def test_t46_waiting_ends_at_once_when_the_server_is_told_to_stop(
    settings: Settings, keys: Keys, tenant: Tenant, tmp_path: Path
) -> None:
    headers = bearer(await keys.connector(tenant))
    with serving(settings, tmp_path) as server:
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            poll = asyncio.create_task(polled(client, wait=30))
            await asyncio.sleep(0.5)
            told = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            assert await poll == []
            assert time.monotonic() - told <= 1.0
        assert await stopping in (0, -15)
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
async def test_a_poll_whose_caller_has_gone_takes_nothing(
    settings: Settings, keys: Keys, tenant: Tenant, database: Database, tmp_path: Path
) -> None:
    headers = bearer(await keys.connector(tenant))
    with serving(settings, tmp_path) as server:
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(POLL, params={"wait": 20}, timeout=0.7)
        await asyncio.sleep(0.3)
        await asked(database, tenant)
        await asyncio.sleep(1.5)
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            (held,) = await polled(client)
    assert held["attempt"] == 1


async def test_another_tenants_and_another_connectors_directives_are_missing(
    app: FastAPI,
    laptop: httpx.AsyncClient,
    keys: Keys,
    database: Database,
    tenant: Tenant,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    directive_id = await asked(database, tenant)
    (held,) = await polled(laptop)
    other = await new_tenant()
    for token in (await keys.connector(other), await keys.connector(tenant, "server")):
        async with calling(app, token) as client:
            assert await polled(client) == []
            for word, said in (("ack", {}), ("result", {"outcome": "succeeded"})):
                answer = await client.post(
                    f"{POLL}/{directive_id}/{word}", json={**lease_of(held), **said}
                )
                assert problem_id(answer, 404) == "not-found"
    kept = await laptop.post(f"{POLL}/{directive_id}/ack", json=lease_of(held))
    assert kept.status_code == 200


async def test_a_key_without_the_scope_and_a_connector_called_platform_are_refused(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    asked_for = {"kind": "conn", "name": "c", "connector_id": "platform"}
    assert problem_id(await owner_client.post("/api/v1/keys", json=asked_for), 422) == "invalid"
    token = await keys.connector(tenant)
    async with database.platform() as session:
        await session.execute(
            update(ApiKey)
            .where(ApiKey.organization_id == tenant.id, ApiKey.kind == "conn")
            .values(connector_id="platform")
        )
    async with calling(app, token) as client:
        assert problem_id(await client.get(POLL), 403) == "forbidden"
    token = await keys.connector(tenant)
    async with database.platform() as session:
        await session.execute(
            update(ApiKey)
            .where(ApiKey.organization_id == tenant.id, ApiKey.connector_id == "laptop")
            .values(scopes=[Scope.SIGNALS_WRITE.value, Scope.DIRECTIVES_READ.value])
        )
    async with calling(app, token) as client:
        answer = await client.get(POLL)
        assert problem_id(answer, 403) == "forbidden"
        assert answer.json()["scope"] == "directives:execute"


@pytest.mark.parametrize("made", ["now", "when the scope came with it"])
async def test_a_connectors_key_reads_no_directive_but_those_that_it_fetches(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant, made: str
) -> None:
    """It lies on a customer's machine; what others of the tenant write and approve is not for it."""
    directive_id = await asked(database, tenant, connector_id="desk")
    token = await keys.connector(tenant)
    if made != "now":
        scopes = ["signals:write", "directives:read", "directives:execute"]
        async with database.platform() as session:
            await session.execute(
                update(ApiKey).where(ApiKey.organization_id == tenant.id).values(scopes=scopes)
            )
    async with calling(app, token) as client:
        me = (await client.get("/api/v1/me")).json()
        assert me["scopes"] == ["directives:execute", "signals:write"]
        for path in ("directives", f"directives/{directive_id}", "approvals", "approval-notices"):
            answer = await client.get(f"/api/v1/{path}")
            assert problem_id(answer, 403) == "forbidden"
            assert answer.json()["scope"] == "directives:read"
        assert await polled(client) == []


async def test_an_owner_makes_a_connectors_key_that_fetches(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    made = await owner_client.post(
        "/api/v1/keys", json={"kind": "conn", "name": "c", "connector_id": "desk"}
    )
    assert made.status_code == 201, made.text
    directive_id = await asked(database, tenant, connector_id="desk")
    token = made.json()["token"]
    async with calling(app, token) as client:
        assert [one["id"] for one in await polled(client)] == [directive_id]


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"outcome": "perhaps"}, "/outcome"),
        ({"attempt": 0}, "/attempt"),
        ({"lease_token": "x"}, "/lease_token"),
        ({"result": {"password": "hunter22"}}, "/result/password"),
        ({"result": {"text": "x" * 33_000}}, "/result"),
        ({"result": [1]}, "/result"),
        ({"retry_after_seconds": 1}, "/retry_after_seconds"),
        ({"outcome": "failed", "error_message": "a\x00b"}, "/error_message"),
        ({"surprise": 1}, "/surprise"),
    ],
)
async def test_t31_a_bad_report_is_refused_by_its_place(
    laptop: httpx.AsyncClient,
    database: Database,
    tenant: Tenant,
    changed: dict[str, Any],
    pointer: str,
) -> None:
    url = f"{POLL}/{await asked(database, tenant)}/result"
    (held,) = await polled(laptop)
    said = {**lease_of(held), "outcome": "succeeded", **changed}
    answer = await laptop.post(url, json=said)
    assert problem_id(answer, 422) in ("invalid", "secret-found")
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
    assert "hunter22" not in answer.text


async def test_t31_a_result_that_the_database_cannot_hold_is_invalid(
    laptop: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    url = f"{POLL}/{await asked(database, tenant)}/result"
    (held,) = await polled(laptop)
    said = {**lease_of(held), "outcome": "succeeded", "result": {"text": "a\x00b"}}
    assert problem_id(await laptop.post(url, json=said), 422) == "invalid"


@pytest.mark.parametrize("query", [{"wait": 31}, {"wait": -1}, {"limit": 0}, {"status": "running"}])
async def test_t31_a_bad_poll_is_refused(laptop: httpx.AsyncClient, query: dict[str, Any]) -> None:
    answer = await laptop.get(POLL, params=query)
    assert problem_id(answer, 422) == "invalid"
    assert answer.json()["errors"][0]["pointer"] == f"#query/{next(iter(query))}"
