"""Bad input of every sort is a problem with a documented type, never a 500 (trap T31)."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleetprompt.tenants.service import Tenant
from tests.api.support import DIGEST, Keys, calling, problem_id, signal

INSTALL = f"/api/v1/packages/{DIGEST}/install"
SIGNALS = "/api/v1/signals"
JSON = {"Content-Type": "application/json"}


def _config(**config: Any) -> bytes:
    return json.dumps({"config": config}).encode()


@pytest.mark.parametrize(
    ("url", "body", "status", "problem", "pointer"),
    [
        (INSTALL, _config(timezone="Mars/Olympus"), 422, "invalid", "/config/timezone"),
        (INSTALL, _config(schedule_time="25:00"), 422, "invalid", "/config/schedule_time"),
        (INSTALL, _config(surprise=1), 422, "invalid", "/config/surprise"),
        (INSTALL, _config(timezone="a\x00b"), 422, "invalid", "/config/timezone"),
        (INSTALL, b'{"config": {"timezone": "\\ud800"}}', 400, "malformed", None),
        (INSTALL, b'{"config": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "malformed", None),
        (INSTALL, b'{"config": {"max_lines": NaN}}', 400, "malformed", None),
        (INSTALL, b'{"config": {"max_lines": 1e999}}', 400, "malformed", None),
        (INSTALL, b'{"config": {"max_lines": ' + b"9" * 5000 + b"}}", 400, "malformed", None),
        (INSTALL, b'{"config": {"max_lines": ' + b"9" * 30 + b"}}", 422, "invalid", None),
        (INSTALL, b'{"config": {"max_lines": 40.5}}', 422, "invalid", "/config/max_lines"),
        (INSTALL, b"{", 400, "malformed", None),
        (INSTALL, b"\xff\xfe", 400, "malformed", None),
        (INSTALL, b"[]", 422, "invalid", ""),
        (INSTALL, b'{"config": []}', 422, "invalid", "/config"),
        ("/api/v1/packages/no_such_package/install", b"{}", 404, "not-found", None),
        ("/api/v1/packages/%00/install", b"{}", 422, "invalid", "#path/slug"),
        (INSTALL, b"{" + b" " * 2_000_000 + b"}", 413, "too-large", None),
        (SIGNALS, b" " * 2_000_000, 413, "too-large", None),
        (SIGNALS, b"[" * 10_000 + b"]" * 10_000, None, None, None),
        (SIGNALS, json.dumps(signal(occurred_at="2026-01-06T09:00:00")).encode(), 422, "invalid",
         "/occurred_at"),
        (SIGNALS, json.dumps(signal(data={"a": "x\x00y"})).encode(), 422, "invalid", None),
        (SIGNALS, json.dumps(signal(data={"a": "\ud800"})).encode(), None, None, None),
        (SIGNALS, json.dumps(signal(data={"password": "hunter2"})).encode(), 422, "secret-found",
         "/data/password"),
        (SIGNALS, b'{"a": NaN}', None, None, None),
        ("/api/v1/keys", b'{"kind": "pub", "name": "a\\u0000b"}', 422, "invalid", "/name"),
    ],
)  # fmt: skip
async def test_it_is_told_and_never_a_500(
    owner_client: httpx.AsyncClient,
    url: str,
    body: bytes,
    status: int | None,
    problem: str | None,
    pointer: str | None,
) -> None:
    answer = await owner_client.post(url, content=body, headers=JSON)
    assert 400 <= answer.status_code < 500
    assert "Value error" not in answer.text  # a library's word, and nobody's
    found = problem_id(answer, answer.status_code)
    if status is not None:
        assert (answer.status_code, found) == (status, problem), answer.text
    if pointer is not None:
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_duplicate_keys_in_one_batch_are_one_signal(owner_client: httpx.AsyncClient) -> None:
    answer = await owner_client.post(SIGNALS, json=[signal(dedupe_key="k"), signal(dedupe_key="k")])
    assert answer.status_code == 200
    assert [one["status"] for one in answer.json()["items"]] == ["created", "duplicate"]


async def test_other_content_types_are_refused(owner_client: httpx.AsyncClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", ""):
        for url in (INSTALL, SIGNALS, "/api/v1/keys"):
            answer = await owner_client.post(url, content=b"{}", headers={"Content-Type": kind})
            assert problem_id(answer, 415) == "unsupported-media-type"


async def test_a_member_may_read_packages_and_not_install_them(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    async with calling(app, await keys.user(tenant, "member")) as client:
        assert (await client.get("/api/v1/packages")).status_code == 200
        answer = await client.post(INSTALL, json={})
        assert problem_id(answer, 403) == "forbidden"
        assert answer.json()["role"] == "admin"


async def test_a_body_is_not_even_read_before_the_key_is_known(app: FastAPI) -> None:
    async with calling(app) as client:
        answer = await client.post(INSTALL, content=b"{", headers=JSON)
        assert problem_id(answer, 401) == "unauthenticated"


async def test_a_problem_repeats_no_value(owner_client: httpx.AsyncClient) -> None:
    canary = "canary-value-5f1d"
    for call in (
        owner_client.post("/api/v1/members", json={"email": canary, "role": canary}),
        owner_client.post(INSTALL, json={"config": {"timezone": canary, "schedule_time": canary}}),
        owner_client.get(f"/api/v1/signals?limit={canary}&occurred_after={canary}"),
        owner_client.post("/api/v1/keys", json={"kind": canary, "name": "x", "role": canary}),
        owner_client.post(SIGNALS, json=signal(data={"password": canary})),
        owner_client.get(f"/api/v1/signals/{canary}"),
    ):
        answer = await call
        assert problem_id(answer, 422)
        assert canary not in answer.text
