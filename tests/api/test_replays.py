"""Replays through the API: for owners alone, once under one key, readable from start to end."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.keys import Role
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling, problem_id, signal
from tests.signals.replaying import Replays

PATH = "/api/v1/replays"
RANGE = {"occurred_from": "2026-01-06T00:00:00Z", "occurred_before": "2026-01-07T00:00:00Z"}


@pytest.fixture
def replays(database: Database, settings: Settings, tenant: Tenant) -> Replays:
    return Replays(database, settings, tenant)


async def tell(client: httpx.AsyncClient, count: int, **rest: Any) -> None:
    for number in range(count):
        body = signal(type="mail.received", data={"number": number}, **rest)
        assert (await client.post("/api/v1/signals", json=body)).status_code == 201


async def test_a_replay_is_asked_for_worked_off_and_read(
    owner_client: httpx.AsyncClient, replays: Replays
) -> None:
    await replays.install()
    await tell(owner_client, 3)
    answer = await owner_client.post(PATH, json=RANGE)
    assert answer.status_code == 202, answer.text
    asked = answer.json()
    assert (asked["state"], asked["live"], asked["selection"]) == ("requested", False, RANGE)
    assert asked["outcome"] == "Waits for a worker, or for an approval."
    await replays.work()
    muted = (await owner_client.get(asked["links"]["self"])).json()
    assert (muted["state"], muted["would_request"], muted["requested"]) == ("completed", 3, 0)
    found = (await owner_client.get(f"{muted['links']['findings']}?limit=2")).json()
    assert [one["params"] for one in found["items"]] == [{"number": 2}, {"number": 1}]
    rest = (await owner_client.get(found["links"]["next"])).json()
    assert [one["params"] for one in rest["items"]] == [{"number": 0}]
    source = (await owner_client.get(rest["items"][0]["links"]["signal"])).json()
    assert source["data"] == {"number": 0}

    live = (await owner_client.post(PATH, json={**RANGE, "live": True})).json()
    await replays.work()
    live = (await owner_client.get(live["links"]["self"])).json()
    assert live["requested"] == 3
    found = (await owner_client.get(f"{live['links']['findings']}?outcome=requested")).json()
    made = (await owner_client.get(found["items"][0]["links"]["directive"])).json()
    assert (made["type"], made["causation_id"]) == ("test.note", live["id"])
    none = (await owner_client.get(f"{live['links']['findings']}?outcome=refused")).json()
    assert none["items"] == []
    listed = (await owner_client.get(PATH)).json()["items"]
    assert [one["id"] for one in listed] == [live["id"], muted["id"]]
    assert (await owner_client.get(f"{PATH}?state=running")).json()["items"] == []
    for link in (*live["links"].values(), *muted["links"].values()):
        assert (await owner_client.get(link)).status_code == 200, link


async def test_one_key_is_one_replay(owner_client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "tonight"}
    first = await owner_client.post(PATH, json=RANGE, headers=headers)
    again = await owner_client.post(PATH, json=RANGE, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    other = await owner_client.post(PATH, json={**RANGE, "live": True}, headers=headers)
    assert problem_id(other, 422) == "idempotency-mismatch"
    assert len((await owner_client.get(PATH)).json()["items"]) == 1


async def test_a_replay_is_cancelled_once(
    owner_client: httpx.AsyncClient, replays: Replays
) -> None:
    asked = (await owner_client.post(PATH, json=RANGE)).json()
    for _ in range(2):
        answer = await owner_client.post(f"{asked['links']['self']}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    directive = (await owner_client.get(asked["links"]["directive"])).json()
    assert directive["state"] == "cancelled"
    ended = (await owner_client.post(PATH, json=RANGE)).json()
    await replays.work()
    refused = await owner_client.post(f"{ended['links']['self']}/cancel")
    assert problem_id(refused, 409) == "conflict"


@pytest.mark.parametrize("role", ["admin", "member", "viewer"])
async def test_only_an_owners_key_may(app: FastAPI, keys: Keys, tenant: Tenant, role: Role) -> None:
    async with (
        calling(app, await keys.user(tenant)) as owner,
        calling(app, await keys.user(tenant, role=role)) as client,
    ):
        asked = (await owner.post(PATH, json=RANGE)).json()
        own = asked["links"]["self"]
        for answer in (
            await client.post(PATH, json=RANGE),
            await client.get(PATH),
            await client.get(own),
            await client.get(f"{own}/findings"),
            await client.post(f"{own}/cancel"),
        ):
            assert problem_id(answer, 403) == "forbidden"
            assert answer.json()["role"] == "owner"
        assert len((await owner.get(PATH)).json()["items"]) == 1


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"occurred_from": None}, "/occurred_from"),
        ({"occurred_before": RANGE["occurred_from"]}, "/occurred_before"),
        ({"occurred_from": "2026-01-06T00:00:00"}, "/occurred_from"),
        ({"occurred_from": "0001-01-01T00:00:00+10:00"}, "/occurred_from"),
        ({"inserted_before": "yesterday"}, "/inserted_before"),
        ({"types": ["Mail"]}, "/types/0"),
        ({"types": ["mail.*", "package.*"]}, "/types/1"),
        ({"types": ["a"] * 51}, "/types"),
        ({"sources": ["dagster"]}, "/sources/0"),
        ({"subject_id": "a\x00"}, "/subject_id"),
        ({"package": "nobody"}, "/package"),
        ({"live": "perhaps"}, "/live"),
        ({"mute": False}, "/mute"),
    ],
)
async def test_what_is_wrong_is_pointed_at(
    owner_client: httpx.AsyncClient, wrong: dict[str, Any], pointer: str
) -> None:
    answer = await owner_client.post(PATH, json={**RANGE, **wrong})
    assert problem_id(answer, 422) == "invalid"
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]
