"""Asking for directives over HTTP: once, by those who may, at their time, and calling them off."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.settings import Settings
from fleetprompt.tenants.keys import Scope
from fleetprompt.tenants.service import Tenant
from tests.api.open_directives import Workshop
from tests.api.serving import serving
from tests.api.support import Keys, bearer, calling, problem_id

URL = "/api/v1/directives"
WRITE = {"type": "test.write", "params": {"words": "hello"}}
Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture(autouse=True)
async def _empty_queue(database: Database) -> None:
    """Runners work for all tenants, so what earlier tests left in the queue is taken out of it."""
    async with database.platform() as session:
        await session.execute(text("DELETE FROM fleetprompt.directive_queue"))


@pytest.fixture
def workshop() -> Workshop:
    """What the open types' handler does."""
    return Workshop()


@pytest.fixture
async def app(settings: Settings, workshop: Workshop) -> AsyncIterator[FastAPI]:
    """The application with the workshop's types in place of the registry."""
    made = create_app(settings, workshop.types())
    async with made.router.lifespan_context(made):
        yield made


async def ask(client: httpx.AsyncClient, key: str, **changed: Any) -> httpx.Response:
    """Ask for words to be written."""
    return await client.post(URL, json={**WRITE, **changed}, headers={"Idempotency-Key": key})


async def drain(
    database: Database, settings: Settings, workshop: Workshop, **more: Any
) -> list[tuple[str, str]]:
    """Work off what is due: each attempt's directive and state."""
    known = workshop.types()
    async with DirectiveRunner(database, settings, owner="w", types=known, **more) as runner:
        return [(str(one.directive_id), one.state) for one in await runner.drain()]


async def states(client: httpx.AsyncClient, directive: dict[str, Any]) -> list[str]:
    """The states that a directive came to, in order."""
    found = (await client.get(directive["links"]["self"])).json()
    return [one["to_state"] for one in found["transitions"]]


def words(text_: str) -> dict[str, Any]:
    """The params for these words."""
    return {"params": {"words": text_}}


async def test_what_is_asked_for_is_answered_with_its_address_and_done_once(
    owner_client: httpx.AsyncClient, database: Database, settings: Settings, workshop: Workshop
) -> None:
    more = {"correlation_id": "letter:1", "causation_id": "signal:7", "priority": -3}
    first = await ask(owner_client, "k1", **more)
    assert first.status_code == 202, first.text
    made = first.json()
    assert first.headers["location"] == made["links"]["self"] == f"{URL}/{made['id']}"
    assert made["params"] == {"words": "hello", "where": "paper", "margin": {"left": 2}}
    assert {name: made[name] for name in more} == more
    assert (made["state"], made["target"]) == ("pending", "platform")
    assert "k1" not in made["idempotency_key"]
    assert await drain(database, settings, workshop) == [(made["id"], "succeeded")]
    again = await ask(owner_client, "k1", **more)
    assert (again.status_code, again.headers["location"]) == (200, made["links"]["self"])
    assert again.json()["state"] == "succeeded"
    assert again.json()["result"] == {"words": "hello"}
    assert await drain(database, settings, workshop) == []
    assert [one for one, _ in workshop.written] == ["hello"]


@pytest.mark.slow
async def test_t44_fifty_identical_requests_at_once_are_one_directive_and_other_params_are_refused(
    settings: Settings, database: Database, keys: Keys, tenant: Tenant, workshop: Workshop,
    tmp_path: Path,
) -> None:  # fmt: skip
    token = await keys.user(tenant, "member")
    application = "tests.api.open_directives:app"
    with serving(settings, tmp_path, application=application) as server:
        async with httpx.AsyncClient(
            base_url=server.url, headers=bearer(token), timeout=60
        ) as client:
            answers = await asyncio.gather(*(ask(client, "one") for _ in range(50)))
            assert sorted(one.status_code for one in answers) == [200] * 49 + [202]
            assert len({one.json()["id"] for one in answers}) == 1
            assert len({one.headers["location"] for one in answers}) == 1
            others = await asyncio.gather(*(ask(client, "one", **words(f"no {n}")) for n in "abc"))
            assert {problem_id(one, 422) for one in others} == {"idempotency-mismatch"}
            items = (await client.get(URL)).json()["items"]
            assert [one["id"] for one in items] == [answers[0].json()["id"]]
            assert await states(client, items[0]) == ["requested", "pending"]
            assert await drain(database, settings, workshop) == [(items[0]["id"], "succeeded")]
        assert "Traceback" not in server.log.read_text()
    assert [one for one, _ in workshop.written] == ["hello"]


@pytest.mark.parametrize(
    "changed",
    [
        words("other"),
        {"type": "test.announce"},
        {"priority": 1},
        {"available_at": "2026-12-24T18:00:00Z"},
        {"expires_at": "2999-01-01T00:00:00Z"},
        {"correlation_id": "another story"},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_a_key_stands_for_one_request_whatever_is_other_about_the_second(
    owner_client: httpx.AsyncClient, changed: dict[str, Any]
) -> None:
    assert (await ask(owner_client, "k")).status_code == 202
    refused = await ask(owner_client, "k", **changed)
    assert problem_id(refused, 422) == "idempotency-mismatch"
    assert len((await owner_client.get(URL)).json()["items"]) == 1


async def test_what_is_left_out_is_the_same_as_its_default(
    owner_client: httpx.AsyncClient,
) -> None:
    assert (await ask(owner_client, "k")).status_code == 202
    spelled = {"params": {"words": "hello", "where": "paper", "margin": {"left": 2}}}
    again = await ask(owner_client, "k", **spelled, priority=0, expires_at=None)
    assert again.status_code == 200, again.text


async def test_each_tenant_has_keys_of_its_own_and_nobody_takes_the_platforms(
    app: FastAPI, keys: Keys, tenant: Tenant, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    other = await new_tenant()
    ids = set()
    for one in (tenant, other):
        async with calling(app, await keys.user(one)) as client:
            made = await ask(client, f"dir:digest:{one.slug}:1:2026-01-06")
            assert made.status_code == 202
            assert made.json()["idempotency_key"].startswith(f"dir:api:{one.slug}:")
            ids.add(made.json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("changed", "problem", "pointer"),
    [
        ({"type": "test.sing"}, "invalid", "/type"),
        ({"type": "test.apart"}, "invalid", "/type"),
        ({"type": "package.install"}, "invalid", "/type"),
        ({"params": {}}, "invalid", "/params/words"),
        ({"params": []}, "invalid", "/params"),
        (words(""), "invalid", "/params/words"),
        ({"params": {"words": "a", "loud": True}}, "invalid", "/params/loud"),
        ({"params": {"words": "a", "margin": {"left": -1}}}, "invalid", "/params/margin/left"),
        (words("https://chat.example.org/hooks/abcd1234efgh"), "secret-found", "/params/words"),
        ({"target": "laptop"}, "invalid", "/target"),
        ({"type": "test.carry"}, "invalid", "/target"),
        ({"type": "test.carry", "params": {}, "target": "platform"}, "invalid", "/target"),
        ({"priority": 101}, "invalid", "/priority"),
        ({"priority": -101}, "invalid", "/priority"),
        ({"state": "running"}, "invalid", "/state"),
        ({"actor": "platform"}, "invalid", "/actor"),
        ({"available_at": "2026-12-24T18:00:00"}, "invalid", "/available_at"),
        ({"available_at": "9999-12-31T23:59:59-14:00"}, "invalid", "/available_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "invalid", "/expires_at"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "invalid", "/expires_at"),
        (words("a\x00b"), "invalid", None),
        ({"correlation_id": "a\x00b"}, "invalid", "/correlation_id"),
        ({"causation_id": "\x00"}, "invalid", "/causation_id"),
        ({"type": "test.carry", "params": {}, "target": "lap\x00top"}, "invalid", "/target"),
        ({"type": "test.write\x00"}, "invalid", "/type"),
    ],
)
async def test_bad_requests_are_refused_with_the_place_and_leave_nothing(
    owner_client: httpx.AsyncClient, changed: dict[str, Any], problem: str, pointer: str | None
) -> None:
    answer = await ask(owner_client, "k", **changed)
    assert problem_id(answer, 422) == problem, answer.text
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert (await owner_client.get(URL)).json()["items"] == []
    # The key is not used up by what was refused.
    assert (await ask(owner_client, "k")).status_code == 202


async def test_a_request_needs_a_key_of_its_own(owner_client: httpx.AsyncClient) -> None:
    for headers in ({}, {"Idempotency-Key": ""}, {"Idempotency-Key": "a b"},
                    {"Idempotency-Key": "k" * 256}, {b"Idempotency-Key": "ä".encode()}):  # fmt: skip
        answer = await owner_client.post(URL, json=WRITE, headers=headers)
        assert problem_id(answer, 422) == "invalid"
        assert answer.json()["errors"][0]["pointer"] == "#header/idempotency-key"


async def test_a_start_is_at_most_a_year_away_and_an_end_lies_behind_it(
    owner_client: httpx.AsyncClient,
) -> None:
    now = datetime.now(UTC)

    async def pointers(start: timedelta | None, end: timedelta | None) -> list[str]:
        times = {"available_at": start, "expires_at": end}
        given = {name: (now + one).isoformat() for name, one in times.items() if one is not None}
        answer = await ask(owner_client, f"{start} {end}".replace(" ", "_"), **given)
        return [one["pointer"] for one in answer.json().get("errors", [])]

    day = timedelta(days=1)
    assert await pointers(366 * day, None) == ["/available_at"]
    assert await pointers(364 * day, None) == []
    assert await pointers(day, day) == ["/expires_at"]
    assert await pointers(2 * day, day) == ["/expires_at"]
    assert await pointers(day, 2 * day) == []
    assert await pointers(None, -day) == ["/expires_at"]
    assert await pointers(-day, day) == []
    assert await pointers(366 * day, 365 * day) == ["/available_at", "/expires_at"]


async def test_a_start_in_the_past_means_now_and_passes_nobody(
    owner_client: httpx.AsyncClient,
) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    made = (await ask(owner_client, "k", available_at="0001-01-01T00:00:00Z")).json()
    assert datetime.fromisoformat(made["available_at"]) > before


async def test_the_runner_takes_the_higher_priority_first_and_waits_for_a_start(
    owner_client: httpx.AsyncClient, database: Database, settings: Settings, workshop: Workshop
) -> None:
    start = datetime.now(UTC) + timedelta(seconds=4)
    asked: dict[str, dict[str, Any]] = {
        "low": {"priority": -100},
        "plain": {},
        "high": {"priority": 100},
        "later": {"priority": 100, "available_at": start.isoformat()},
    }
    for name, more in asked.items():
        made = await ask(owner_client, name, **words(name), **more)
        assert made.status_code == 202, made.text
    until = time.monotonic() + 60
    while len(workshop.written) < 4 and time.monotonic() < until:
        await drain(database, settings, workshop, concurrency=1)
        await asyncio.sleep(0.1)
    written = dict(workshop.written)
    assert list(written)[:3] == ["high", "plain", "low"]
    assert written["later"] >= start


async def test_what_has_not_started_in_time_is_cancelled_and_asking_again_tells_so(
    owner_client: httpx.AsyncClient, database: Database, settings: Settings, workshop: Workshop
) -> None:
    end = datetime.now(UTC) + timedelta(seconds=3)
    made = await ask(owner_client, "k", expires_at=end.isoformat())
    assert made.status_code == 202, made.text
    await asyncio.sleep((end - datetime.now(UTC)).total_seconds() + 0.1)
    await drain(database, settings, workshop)
    again = await ask(owner_client, "k", expires_at=end.isoformat())
    assert (again.status_code, again.json()["state"]) == (200, "cancelled")
    assert again.json()["error_message"] == "not started in time"
    assert workshop.written == []


async def test_who_may_ask_and_cancel_is_for_the_type_to_say(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    own = (await ask(owner_client, "owners", type="test.announce")).json()
    refused = {
        "viewer": await keys.user(tenant, "viewer"),
        "a connector": await keys.connector(tenant),
        "without the scope": await keys.user(tenant, scopes=[Scope.DIRECTIVES_READ]),
    }
    for who, token in refused.items():
        async with calling(app, token) as client:
            assert problem_id(await ask(client, who), 403) == "forbidden", who
            answer = await client.post(f"{own['links']['self']}/cancel")
            assert problem_id(answer, 403) == "forbidden", who
    async with calling(app, await keys.user(tenant, "member")) as member:
        assert problem_id(await ask(member, "k", type="test.announce"), 403) == "forbidden"
        # Not even as a repetition of what an owner has asked for.
        assert problem_id(await ask(member, "owners", type="test.announce"), 403) == "forbidden"
        answer = await member.post(f"{own['links']['self']}/cancel")
        assert problem_id(answer, 403) == "forbidden"
        mine = await ask(member, "k")
        assert mine.status_code == 202
        assert (await member.post(f"{mine.json()['links']['self']}/cancel")).status_code == 200
    assert await states(owner_client, own) == ["requested", "pending"]


async def test_another_tenants_directive_is_neither_read_nor_cancelled(
    app: FastAPI, keys: Keys, new_tenant: Callable[[], Awaitable[Tenant]],
    owner_client: httpx.AsyncClient,
) -> None:  # fmt: skip
    made = (await ask(owner_client, "k")).json()
    async with calling(app, await keys.user(await new_tenant())) as stranger:
        assert problem_id(await stranger.get(made["links"]["self"]), 404) == "not-found"
        answer = await stranger.post(f"{made['links']['self']}/cancel")
        assert problem_id(answer, 404) == "not-found"
    assert await states(owner_client, made) == ["requested", "pending"]


async def test_cancelling_twice_or_at_once_is_one_cancellation(
    owner_client: httpx.AsyncClient, database: Database, settings: Settings, workshop: Workshop
) -> None:
    made = (await ask(owner_client, "k")).json()
    url = f"{made['links']['self']}/cancel"
    answers = await asyncio.gather(*(owner_client.post(url) for _ in range(10)))
    answers.append(await owner_client.post(url))
    assert [(one.status_code, one.json()["state"]) for one in answers] == [(200, "cancelled")] * 11
    assert await states(owner_client, made) == ["requested", "pending", "cancelled"]
    assert await drain(database, settings, workshop) == []
    assert (await ask(owner_client, "k")).json()["state"] == "cancelled"


async def test_what_has_finished_cannot_be_cancelled(
    owner_client: httpx.AsyncClient, database: Database, settings: Settings, workshop: Workshop
) -> None:
    made = (await ask(owner_client, "k")).json()
    await drain(database, settings, workshop)
    answer = await owner_client.post(f"{made['links']['self']}/cancel")
    assert problem_id(answer, 409) == "conflict"
    assert "succeeded" in answer.json()["detail"]


async def test_t15_the_end_of_an_attempt_that_was_cancelled_meanwhile_counts_for_nothing(
    owner_client: httpx.AsyncClient, database: Database, settings: Settings, workshop: Workshop
) -> None:
    workshop.held = True
    made = (await ask(owner_client, "k")).json()
    working = asyncio.create_task(drain(database, settings, workshop))
    try:
        await asyncio.wait_for(workshop.at_work.wait(), 30)
        answer = await owner_client.post(f"{made['links']['self']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        workshop.go_on.set()
        assert await asyncio.wait_for(working, 30) == [(made["id"], "lost")]
    finally:
        working.cancel()
    found = (await owner_client.get(made["links"]["self"])).json()
    assert (found["state"], found["result"]) == ("cancelled", None)
    assert await states(owner_client, made) == ["requested", "pending", "running", "cancelled"]
    (execution,) = (await owner_client.get(made["links"]["executions"])).json()["items"]
    assert execution["state"] == "cancelled"


async def test_a_type_with_approval_waits_for_it_and_cancelling_withdraws_it(
    owner_client: httpx.AsyncClient, database: Database, settings: Settings, workshop: Workshop
) -> None:
    made = (await ask(owner_client, "k", type="test.weigh")).json()
    assert made["state"] == "awaiting_approval"
    assert made["links"]["approval"] == f"/api/v1/approvals/{made['approval_id']}"
    assert (await ask(owner_client, "k", type="test.weigh")).json() == made
    assert await drain(database, settings, workshop) == []
    cancelled = await owner_client.post(f"{made['links']['self']}/cancel")
    assert (cancelled.json()["state"], cancelled.json()["approval_id"]) == ("cancelled", None)
    approval = (await owner_client.get(made["links"]["approval"])).json()
    assert approval["state"] not in ("waiting", "approved")


HOSTILE = (
    "'; DROP TABLE directives; --",
    '" OR 1=1 --',
    "%' AND pg_sleep(9) AND '%'='",
    "$1 {0} %s :name \\",
    "‮мир \u2028 𝕏 \x7f\x01",
)


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_text_is_text_wherever_it_stands(
    owner_client: httpx.AsyncClient, hostile: str
) -> None:
    made = await ask(owner_client, "k", correlation_id=hostile, causation_id=hostile,
                     **words(hostile))  # fmt: skip
    assert made.status_code == 202, made.text
    assert made.json()["params"]["words"] == hostile
    await ask(owner_client, "another")
    for name in ("correlation_id", "type", "target"):
        found = await owner_client.get(URL, params={name: hostile})
        wanted = [made.json()["id"]] if name == "correlation_id" else []
        assert [one["id"] for one in found.json()["items"]] == wanted
    refused = await ask(owner_client, "k2", type=hostile)
    assert problem_id(refused, 422) == "invalid"
    assert hostile not in refused.text


async def test_the_list_is_narrowed_by_state_type_target_and_story(
    owner_client: httpx.AsyncClient,
) -> None:
    carry = {"type": "test.carry", "target": "laptop"}
    ids = {
        "carried": (await ask(owner_client, "1", **carry)).json()["id"],
        "told": (await ask(owner_client, "2", correlation_id="story")).json()["id"],
        "waiting": (await ask(owner_client, "3", type="test.weigh")).json()["id"],
    }
    for name, narrowed in {
        "carried": {"target": "laptop"},
        "told": {"correlation_id": "story", "target": "platform"},
        "waiting": {"state": "awaiting_approval", "type": "test.weigh"},
    }.items():
        found = (await owner_client.get(URL, params=narrowed)).json()["items"]
        assert [one["id"] for one in found] == [ids[name]], name
    nobody = await owner_client.get(URL, params={"target": "desktop"})
    assert nobody.json()["items"] == []
