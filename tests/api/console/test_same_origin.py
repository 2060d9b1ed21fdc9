"""A session's cookie counts for our own pages alone (messaging T20: POST from elsewhere refused)."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import SAME_ORIGIN, at_console, browsing, furnish, person
from tests.api.support import Keys, calling, problem_id

PUBLIC = "https://fleet.example.com"

ALLOWED = [
    {"Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://api.test"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "null"},
]
REFUSED = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "SAME-ORIGIN"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://api.test"},
    {"Origin": "null"},
    {"Origin": "http://api.test.evil.example"},
    {"Origin": "https://api.test"},
    {"Origin": "http://api.test:8000"},
    {"Referer": "http://api.test/console"},
]


async def _with_cookie(
    app: FastAPI, keys: Keys, tenant: Tenant, headers: dict[str, str]
) -> AsyncIterator[httpx.AsyncClient]:
    owner = await person(keys, tenant, "olga", "owner")
    async with (
        at_console(app, keys, tenant, owner) as signed_in,
        browsing(app, headers=headers) as it,
    ):
        it.cookies = signed_in.cookies
        yield it


@pytest.mark.parametrize("headers", ALLOWED, ids=str)
async def test_t20_our_own_pages_may_change_things_at_the_api_and_the_console(
    app: FastAPI, keys: Keys, tenant: Tenant, headers: dict[str, str]
) -> None:
    async for client in _with_cookie(app, keys, tenant, headers):
        member = {"email": f"new@{tenant.slug}.example.org", "role": "viewer"}
        assert (await client.post("/api/v1/members", json=member)).status_code == 201
        assert (await client.post("/console/sign-out", data={})).status_code == 303


@pytest.mark.parametrize("headers", REFUSED, ids=str)
async def test_t20_what_comes_from_elsewhere_changes_nothing(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant, headers: dict[str, str]
) -> None:
    place = await furnish(database, tenant)
    async for client in _with_cookie(app, keys, tenant, headers):
        shown = (await client.get(f"/api/v1/approvals/{place.approval_id}")).json()
        yes = {"hash": shown["action_sha256"]}
        for answer in (
            await client.post(f"/api/v1/approvals/{place.approval_id}/approve", json=yes),
            await client.delete(f"/api/v1/keys/{place.approval_id}"),
            await client.put(
                "/api/v1/approval-policies/package.disable",
                json={"required": True, "roles": ["owner"]},
            ),
        ):
            assert problem_id(answer, 403) == "forbidden"
        address = f"/console/approvals/{place.approval_id}"
        for path in (f"{address}/approve", f"{address}/reject", "/console/sign-out"):
            page = await client.post(path, data={**yes, "reason": "no"})
            assert page.status_code == 403
            assert "did not come from a page of this console" in page.text
        assert (await client.get(f"/api/v1/approvals/{place.approval_id}")).json() == shown
        assert (await client.get("/console")).status_code == 200


async def test_signing_in_is_for_our_own_form_too(app: FastAPI, keys: Keys, tenant: Tenant) -> None:
    """Or else a stranger's page could sign a visitor in as the stranger."""
    ada = await person(keys, tenant, "ada", "admin")
    key = await keys.user(tenant, "admin", user_id=ada)
    async with browsing(app, headers={"Sec-Fetch-Site": "cross-site"}) as client:
        assert (await client.post("/console/sign-in", data={"key": key})).status_code == 403
        assert not client.cookies


async def test_a_key_needs_no_origin_and_wins_over_a_cookie(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    viewer = await person(keys, tenant, "vera", "viewer")
    async with (
        at_console(app, keys, tenant, viewer) as signed_in,
        calling(app, await keys.user(tenant, "owner")) as client,
    ):
        client.cookies = signed_in.cookies
        member = {"email": f"new@{tenant.slug}.example.org", "role": "viewer"}
        assert (await client.post("/api/v1/members", json=member)).status_code == 201
        client.headers["Authorization"] = "Bearer fp_user_wrong"
        assert problem_id(await client.get("/api/v1/me"), 401) == "unauthenticated"


@pytest.fixture
async def public_app(settings: Settings) -> AsyncIterator[FastAPI]:
    made = create_app(settings.model_copy(update={"public_url": f"{PUBLIC}/"}))
    async with made.router.lifespan_context(made):
        yield made


async def test_behind_a_proxy_the_public_url_says_what_our_origin_and_the_cookie_are(
    public_app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    key = await keys.user(tenant, "admin", user_id=ada)
    transport = httpx.ASGITransport(app=public_app)
    async with httpx.AsyncClient(transport=transport, base_url="http://10.0.0.5:8000") as client:
        sent = {"key": key}
        for origin in ("http://10.0.0.5:8000", "http://fleet.example.com"):
            answer = await client.post("/console/sign-in", data=sent, headers={"Origin": origin})
            assert answer.status_code == 403
        answer = await client.post("/console/sign-in", data=sent, headers={"Origin": PUBLIC})
        assert answer.status_code == 303
        name, _, attributes = answer.headers["set-cookie"].partition("=")
        assert name == "__Host-fleetprompt_session"
        for attribute in ("Secure", "HttpOnly", "SameSite=lax", "Path=/"):
            assert attribute in attributes
        assert "Domain" not in attributes


async def test_on_plain_http_the_cookie_is_of_one_port(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    key = await keys.user(tenant, "admin", user_id=ada)
    async with browsing(app, headers=SAME_ORIGIN) as client:
        answer = await client.post("/console/sign-in", data={"key": key})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("fleetprompt_session_8000=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie


async def test_a_session_reads_and_follows_like_a_key(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    async with at_console(app, keys, tenant, ada) as client:
        me = (await client.get("/api/v1/me")).json()
        assert (me["user_id"], me["role"], me["key_id"]) == (str(ada), "admin", None)
        assert me["session_id"]
        assert me["tenant"]["slug"] == tenant.slug
        (held,) = client.cookies.jar
        client.cookies.set(held.name, "x" * 43, domain=held.domain)
        assert problem_id(await client.get("/api/v1/me"), 401) == "unauthenticated"
