"""The timeline through the API."""

from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling, problem_id, signal


@pytest.mark.parametrize("correlation_id", ["mail:a/b", "a b?c#d&e=f", "ü:1/", "100%25"])
async def test_a_correlation_id_is_read_as_it_is(
    owner_client: httpx.AsyncClient, correlation_id: str
) -> None:
    body = signal(type="mail.read", metadata={"correlation_id": correlation_id})
    stored = await owner_client.post("/api/v1/signals", json=body)
    assert stored.status_code == 201, stored.text
    answer = await owner_client.get(f"/api/v1/timeline/{quote(correlation_id, safe='/:')}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["correlation_ids"] == [correlation_id]
    assert [entry["kind"] for entry in found["entries"]] == ["signal"]
    again = await owner_client.get(found["links"]["self"])
    assert again.json() == found
    own = await owner_client.get(found["entries"][0]["links"]["self"])
    assert own.json()["correlation_id"] == correlation_id


async def test_bad_questions_are_problems(owner_client: httpx.AsyncClient) -> None:
    for path, status, problem in (
        ("nothing:1", 404, "not-found"),
        ("x" * 513, 422, "invalid"),
        ("a%00b", 422, "invalid"),
        ("a?limit=0", 422, "invalid"),
        ("a?limit=1001", 422, "invalid"),
    ):
        answer = await owner_client.get(f"/api/v1/timeline/{path}")
        assert problem_id(answer, status) == problem, path


async def test_reading_it_needs_the_scope(app: FastAPI, keys: Keys, tenant: Tenant) -> None:
    async with calling(app, await keys.user(tenant, scopes=["executions:read"])) as client:
        answer = await client.get("/api/v1/timeline/x:1")
        assert problem_id(answer, 403) == "forbidden"
        assert answer.json()["scope"] == "signals:read"
