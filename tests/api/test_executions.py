"""Executions through the API: the platform's own and those that agents report, alike."""

from typing import Any

import httpx
from fastapi import FastAPI

from fleetprompt.db.engine import Database
from fleetprompt.executions import service
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling, problem_id, signal

PATH = "/api/v1/executions"


def told(**changed: Any) -> dict[str, Any]:
    return {"key": "run-1", "kind": "support.drafts", "state": "completed", **changed}


async def test_a_report_is_made_once_and_read_back(owner_client: httpx.AsyncClient) -> None:
    body = told(cost_usd=0.5, tokens_in=7, correlation_id="mail:1/x")
    first = await owner_client.post(PATH, json=body)
    assert first.status_code == 201, first.text
    again = await owner_client.post(PATH, json=body)
    assert (again.status_code, again.json()) == (200, first.json())
    other = await owner_client.post(PATH, json={**body, "tokens_in": 8})
    assert problem_id(other, 422) == "idempotency-mismatch"
    ended = await owner_client.post(PATH, json=told(state="failed"))
    assert problem_id(ended, 409) == "conflict"
    links = first.json()["links"]
    page = (await owner_client.get(links["self"])).json()
    assert {name: page[name] for name in first.json()} == first.json()
    assert page["logs"] == []
    timeline = (await owner_client.get(links["timeline"])).json()
    assert [entry["kind"] for entry in timeline["entries"]] == ["signal", "execution"]


async def test_own_and_reported_executions_are_one_list_in_pages(
    owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    made = []
    for number in range(4):
        async with database.tenant(tenant.schema) as session:
            made.append(str((await service.create(session, "test.own")).id))
        sent = signal(data={"execution_id": f"e-{number}"})
        made.append((await owner_client.post("/api/v1/signals", json=sent)).json()["id"])
    listed: list[str] = []
    url = f"{PATH}?limit=3"
    while url:
        page = (await owner_client.get(url)).json()
        listed += [one["id"] for one in page["items"]]
        url = page["links"].get("next")
    assert listed == sorted(made, reverse=True)
    found = (await owner_client.get(f"{PATH}?state=completed")).json()["items"]
    assert {one["reported_by"] for one in found} == {"test"}


async def test_reporting_needs_the_scope(app: FastAPI, keys: Keys, tenant: Tenant) -> None:
    async with calling(app, await keys.user(tenant, scopes=["executions:read"])) as client:
        answer = await client.post(PATH, json=told())
        assert problem_id(answer, 403) == "forbidden"
        assert answer.json()["scope"] == "executions:write"


async def test_what_is_wrong_is_pointed_at(owner_client: httpx.AsyncClient) -> None:
    for wrong, pointer in (
        ({"key": ""}, "/key"),
        ({"kind": "Bad Kind"}, "/kind"),
        ({"finished_at": "2026-01-01T00:00:00"}, "/finished_at"),
        ({"result": {"password": "hunter2"}}, "/result/password"),
    ):
        answer = await owner_client.post(PATH, json=told(**wrong))
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
        assert "hunter2" not in answer.text
