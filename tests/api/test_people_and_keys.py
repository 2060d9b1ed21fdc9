"""Tenants, members and keys over HTTP."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleetprompt.ids import new_id
from fleetprompt.tenants.keys import well_formed
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling, problem_id


async def test_the_operator_makes_a_tenant_whose_owner_can_begin_at_once(
    app: FastAPI, keys: Keys
) -> None:
    slug = f"t{new_id().hex[-12:]}"
    async with calling(app, await keys.operator()) as operator:
        new = {"slug": slug, "name": "Acme", "owner_email": "ada@example.org"}
        made = await operator.post("/api/v1/tenants", json=new)
        assert made.status_code == 201, made.text
        assert made.headers["cache-control"] == "no-store"
        assert problem_id(await operator.post("/api/v1/tenants", json=new), 409) == "conflict"
        listed = (await operator.get("/api/v1/tenants")).json()["items"]
        assert slug in [one["slug"] for one in listed]
        async with calling(app, made.json()["owner_key"]["token"]) as owner_client:
            me = (await owner_client.get("/api/v1/me")).json()
            assert (me["tenant"]["slug"], me["role"]) == (slug, "owner")
            assert "tenants:admin" not in me["scopes"]
            members = (await owner_client.get("/api/v1/members")).json()["items"]
            assert [one["email"] for one in members] == ["ada@example.org"]
            wrong = await operator.request(
                "DELETE", f"/api/v1/tenants/{slug}", json={"confirm": "x"}
            )
            assert problem_id(wrong, 422) == "invalid"
            typed = {"confirm": slug}
            gone = await operator.request("DELETE", f"/api/v1/tenants/{slug}", json=typed)
            assert gone.status_code == 204, gone.text
            await asyncio.sleep(keys.settings.key_cache_seconds)
            assert problem_id(await owner_client.get("/api/v1/me"), 401) == "unauthenticated"


async def test_an_owner_of_another_tenant_is_no_operator(owner_client: httpx.AsyncClient) -> None:
    answer = await owner_client.post("/api/v1/tenants", json={"slug": "x", "name": "X"})
    assert problem_id(answer, 403) == "forbidden"


async def test_a_key_is_shown_once_and_works_until_it_is_revoked(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    """Trap T29: within a second."""
    new = {"kind": "user", "name": "ci", "role": "member", "scopes": ["signals:read"]}
    made = await owner_client.post("/api/v1/keys", json=new)
    assert made.status_code == 201, made.text
    assert made.headers["cache-control"] == "no-store"
    token = made.json()["token"]
    assert well_formed(token)
    listed = await owner_client.get("/api/v1/keys")
    assert token not in listed.text
    assert made.json()["hint"] in [one["hint"] for one in listed.json()["items"]]
    async with calling(app, token) as client:
        assert (await client.get("/api/v1/signals")).status_code == 200
        revoked = await owner_client.delete(made.json()["links"]["self"])
        assert revoked.status_code == 204
        ended = time.monotonic()
        while (answer := await client.get("/api/v1/signals")).status_code == 200:
            assert time.monotonic() - ended <= 1.0
            await asyncio.sleep(0.02)
        assert problem_id(answer, 401) == "unauthenticated"


async def test_nobody_makes_a_key_that_may_do_more_than_their_own(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    limited = await keys.user(tenant, role="admin", scopes=["keys:manage", "signals:read"])
    async with calling(app, limited) as client:
        for more in (
            {"role": "owner", "scopes": ["signals:read"]},
            {"role": "admin", "scopes": ["signals:read", "members:manage"]},
            {"role": "admin"},
        ):
            answer = await client.post("/api/v1/keys", json={"kind": "user", "name": "x", **more})
            assert problem_id(answer, 403) == "forbidden"


async def test_a_key_can_be_made_for_members_of_the_own_tenant_alone(
    owner_client: httpx.AsyncClient, keys: Keys, tenant: Tenant, new_tenant: Any
) -> None:
    other = await new_tenant()
    stranger = await keys.member(other, f"s@{other.slug}.example.org", "owner")
    colleague = await keys.member(tenant, f"c@{tenant.slug}.example.org", "member")
    new = {"kind": "user", "name": "x", "role": "member"}
    refused = await owner_client.post("/api/v1/keys", json={**new, "user_id": str(stranger)})
    assert problem_id(refused, 404) == "not-found"
    made = await owner_client.post("/api/v1/keys", json={**new, "user_id": str(colleague)})
    assert made.status_code == 201


async def test_an_admin_makes_no_key_in_the_name_of_somebody_else(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    admin = await keys.member(tenant, f"a@{tenant.slug}.example.org", "admin")
    colleague = await keys.member(tenant, f"c@{tenant.slug}.example.org", "member")
    async with calling(app, await keys.user(tenant, "admin", user_id=admin)) as client:
        for user_id, status in ((colleague, 403), (admin, 201)):
            new = {"kind": "user", "name": "x", "role": "member", "user_id": str(user_id)}
            assert (await client.post("/api/v1/keys", json=new)).status_code == status


async def test_a_members_keys_end_with_the_membership(
    app: FastAPI, owner_client: httpx.AsyncClient, keys: Keys, tenant: Tenant
) -> None:
    await keys.member(tenant, f"first@{tenant.slug}.example.org", "owner")
    new = {"email": f"Bob@{tenant.slug}.example.org", "role": "admin", "name": "Bob"}
    added = await owner_client.post("/api/v1/members", json=new)
    assert added.status_code == 201, added.text
    token = await keys.user(tenant, "admin", user_id=added.json()["user_id"])
    assert (await owner_client.delete(added.json()["links"]["self"])).status_code == 204
    await asyncio.sleep(keys.settings.key_cache_seconds)
    async with calling(app, token) as client:
        assert problem_id(await client.get("/api/v1/me"), 401) == "unauthenticated"


async def test_an_admin_neither_makes_nor_unmakes_an_owner(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    email = f"o@{tenant.slug}.example.org"
    owner_id = await keys.member(tenant, email, "owner")
    async with calling(app, await keys.user(tenant, "admin")) as admin:
        for call in (
            admin.post("/api/v1/members", json={"email": "new@example.org", "role": "owner"}),
            admin.post("/api/v1/members", json={"email": email.upper(), "role": "viewer"}),
            admin.delete(f"/api/v1/members/{owner_id}"),
        ):
            assert problem_id(await call, 403) == "forbidden"
    async with calling(app, await keys.user(tenant)) as owner_client:
        last = await owner_client.delete(f"/api/v1/members/{owner_id}")
        assert problem_id(last, 409) == "conflict"


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"kind": "root"}, "/kind"),
        ({"name": ""}, "/name"),
        ({"name": "a\x00b"}, "/name"),
        ({"scopes": ["all"]}, "/scopes/0"),
        ({"scopes": ["tenants:admin"]}, "/scopes"),
        ({"role": None}, "/role"),
        ({"connector_id": "x"}, "/connector_id"),
        ({"expires_at": "2030-01-01T00:00:00"}, "/expires_at"),
        ({"surprise": 1}, "/surprise"),
    ],
)
async def test_a_key_that_cannot_be_made_says_where(
    owner_client: httpx.AsyncClient, changed: dict[str, Any], pointer: str
) -> None:
    new = {"kind": "user", "name": "x", "role": "member", **changed}
    answer = await owner_client.post("/api/v1/keys", json=new)
    assert problem_id(answer, 422) == "invalid"
    assert [one["pointer"] for one in answer.json()["errors"]] == [pointer]


async def test_an_expired_key_is_refused(app: FastAPI, keys: Keys, tenant: Tenant) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    async with calling(app, await keys.user(tenant, expires_at=past)) as client:
        assert problem_id(await client.get("/api/v1/me"), 401) == "unauthenticated"
