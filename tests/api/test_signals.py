"""Signals over HTTP: in, out again, filtered and in pages."""

import asyncio
from uuid import uuid4

import httpx
from fastapi import FastAPI

from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling, problem_id, signal


async def test_what_was_posted_is_read_again_in_utc(owner_client: httpx.AsyncClient) -> None:
    posted = await owner_client.post(
        "/api/v1/signals", json=signal(metadata={"correlation_id": "c-1"}, dedupe_key="k")
    )
    assert posted.status_code == 201, posted.text
    found = await owner_client.get(f"/api/v1/signals/{posted.json()['id']}")
    assert found.status_code == 200
    content = found.json()
    assert content["occurred_at"] == "2026-01-06T08:00:00Z"
    assert content["inserted_at"].endswith("Z")
    assert content["data"] == {"n": 1}
    assert content["correlation_id"] == "c-1"
    assert content["dedupe_key"] == "k"
    assert (await owner_client.get(content["links"]["self"])).json() == content


async def test_filters_choose_by_prefix_subject_correlation_and_time(
    owner_client: httpx.AsyncClient,
) -> None:
    batch = [
        signal(type="a.b.c", subject_type="ticket", subject_id="7"),
        signal(type="a.bx", metadata={"correlation_id": "c"}),
        signal(type="a.b", occurred_at="2026-02-01T00:00:00Z"),
    ]
    assert (await owner_client.post("/api/v1/signals", json=batch)).status_code == 200

    async def types(**query: str) -> list[str]:
        answer = await owner_client.get("/api/v1/signals", params=query)
        assert answer.status_code == 200, answer.text
        return sorted(one["type"] for one in answer.json()["items"])

    assert await types() == ["a.b", "a.b.c", "a.bx"]
    assert await types(type="a.b.*") == ["a.b.c"]
    assert await types(type="a.b") == ["a.b"]
    assert await types(type="a.*") == ["a.b", "a.b.c", "a.bx"]
    assert await types(subject_type="ticket", subject_id="7") == ["a.b.c"]
    assert await types(correlation_id="c") == ["a.bx"]
    assert await types(occurred_after="2026-02-01T00:00:00Z") == ["a.b"]
    assert await types(occurred_before="2026-02-01T00:00:00Z") == ["a.b.c", "a.bx"]


async def test_pages_hold_everything_once_newest_first(owner_client: httpx.AsyncClient) -> None:
    batch = [signal(data={"n": n}) for n in range(7)]
    await owner_client.post("/api/v1/signals", json=batch)
    seen: list[int] = []
    url: str | None = "/api/v1/signals?limit=3&type=agent.*"
    while url is not None:
        answer = (await owner_client.get(url)).json()
        seen += [one["data"]["n"] for one in answer["items"]]
        url = answer["links"].get("next")
    assert seen == [6, 5, 4, 3, 2, 1, 0]


async def test_a_time_without_zone_and_a_made_up_cursor_are_refused(
    owner_client: httpx.AsyncClient,
) -> None:
    for query, pointer in (
        ({"occurred_after": "2026-01-01T00:00:00"}, "#query/occurred_after"),
        ({"cursor": "nonsense"}, "#query/cursor"),
        ({"cursor": "é" * 22}, "#query/cursor"),
        ({"limit": "201"}, "#query/limit"),
        ({"type": "a\x00b"}, "#query/type"),
        ({"occurred_before": "0001-01-01T00:00:00+14:00"}, "#query/occurred_before"),
    ):
        answer = await owner_client.get("/api/v1/signals", params=query)
        assert problem_id(answer, 422) == "invalid"
        assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_a_connector_posts_at_its_own_address_and_a_user_does_not(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    async with calling(app, await keys.connector(tenant)) as client:
        one = signal(source="edge:proton_mail", dedupe_key="k")
        posted = await client.post("/api/edge/v1/signals", json=one)
        assert posted.status_code == 201, posted.text
        answer = await client.post("/api/edge/v1/signals", json=signal())
        assert problem_id(answer, 422) == "invalid"
    async with calling(app, await keys.user(tenant)) as client:
        answer = await client.post("/api/edge/v1/signals", json=signal(dedupe_key="u"))
        assert problem_id(answer, 403) == "forbidden"


async def test_a_connectors_key_means_the_same_at_either_address(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    """Neither without a dedupe key nor in another connector's name, wherever it posts."""
    async with calling(app, await keys.connector(tenant)) as client:
        for path in ("/api/v1/signals", "/api/edge/v1/signals"):
            for body, pointer in (
                (signal(), "/dedupe_key"),
                (
                    signal(dedupe_key="k", metadata={"connector_id": "somebody-else"}),
                    "/metadata/connector_id",
                ),
            ):
                answer = await client.post(path, json=body)
                assert problem_id(answer, 422) == "invalid"
                assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


async def test_concurrent_posts_of_one_key_store_one_signal(
    owner_client: httpx.AsyncClient,
) -> None:
    answers = await asyncio.gather(
        *(owner_client.post("/api/v1/signals", json=signal(dedupe_key="k")) for _ in range(30))
    )
    assert len({one.json()["id"] for one in answers}) == 1
    assert sorted(one.status_code for one in answers) == [200] * 29 + [201]


async def test_an_unknown_signal_is_not_found(owner_client: httpx.AsyncClient) -> None:
    answer = await owner_client.get(f"/api/v1/signals/{uuid4()}")
    assert problem_id(answer, 404) == "not-found"


async def test_open_streams_of_a_tenant_are_bounded(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    app.state.platform.streams[tenant.schema] = 50
    async with calling(app, await keys.user(tenant)) as client:
        answer = await client.get("/api/v1/signals/stream")
    assert problem_id(answer, 429) == "rate-limited"
