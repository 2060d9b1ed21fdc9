"""Approvals over HTTP: shown by GET, decided by POST with the hash that was shown."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleetprompt.db.engine import Database
from fleetprompt.tenants.keys import Role, Scope
from fleetprompt.tenants.service import Tenant
from tests.api.support import DIGEST, Keys, calling, problem_id
from tests.doubles.mattermost import running_mattermost
from tests.packages.installed import Platform

NOTICES = "/api/v1/approval-notices"
POLICY = "/api/v1/approval-policies/package.disable"


async def _person(keys: Keys, tenant: Tenant, name: str, role: Role) -> str:
    user_id = await keys.member(tenant, f"{name}@{tenant.slug}.example.org", role)
    return await keys.user(tenant, role, user_id=user_id)


async def _waiting(owner: httpx.AsyncClient, **terms: Any) -> dict[str, Any]:
    """A directive that waits for approval under these terms; its approval."""
    put = await owner.put(POLICY, json={"required": True, "roles": ["owner", "admin"], **terms})
    assert put.status_code == 200, put.text
    made = await owner.post(f"/api/v1/packages/{DIGEST}/install", json={"config": {}})
    asked = await owner.post(f"/api/v1/installations/{made.json()['installation_id']}/disable")
    assert asked.json()["state"] == "awaiting_approval"
    answer = await owner.get(
        "/api/v1/approvals",
        params={"directive_id": asked.json()["directive_id"], "state": "waiting"},
    )
    (approval,) = answer.json()["items"]
    found: dict[str, Any] = approval
    return found


async def test_a_person_approves_what_is_shown_and_the_directive_may_run(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    shown = await _waiting(owner_client)
    own = shown["links"]["self"]
    async with calling(app, await _person(keys, tenant, "ada", "admin")) as ada:
        wrong = await ada.post(f"{own}/approve", json={"hash": "0" * 64})
        assert problem_id(wrong, 409) == "conflict"
        given = await ada.post(f"{own}/approve", json={"hash": shown["action_sha256"]})
        assert given.status_code == 200, given.text
        assert given.json()["state"] == "approved"
        (decision,) = given.json()["decisions"]
        assert decision["actor"] == given.json()["settled_by"]
        again = await ada.post(f"{own}/approve", json={"hash": shown["action_sha256"]})
        assert again.json() == given.json()
        directive = (await ada.get(shown["links"]["directive"])).json()
    assert directive["state"] == "pending"
    assert [one["to_state"] for one in directive["transitions"]] == [
        "requested", "awaiting_approval", "pending",
    ]  # fmt: skip


async def test_a_person_rejects_with_a_reason(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    shown = await _waiting(owner_client)
    own = shown["links"]["self"]
    async with calling(app, await _person(keys, tenant, "ada", "admin")) as ada:
        no = {"hash": shown["action_sha256"]}
        assert problem_id(await ada.post(f"{own}/reject", json=no), 422) == "invalid"
        answer = await ada.post(f"{own}/reject", json={**no, "reason": "not on a Friday"})
        assert (answer.json()["state"], answer.json()["reason"]) == ("rejected", "not on a Friday")
        directive = (await ada.get(shown["links"]["directive"])).json()
    assert (directive["state"], directive["error_message"]) == (
        "cancelled",
        "rejected: not on a Friday",
    )


async def test_an_edit_answers_the_new_version_and_the_old_hash_is_void(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    shown = await _waiting(owner_client)
    own, params = shown["links"]["self"], shown["action"]["params"]
    async with calling(app, await _person(keys, tenant, "ada", "admin")) as ada:
        bad = await ada.post(f"{own}/edit", json={"params": {**params, "colour": "red"}})
        assert problem_id(bad, 422) == "invalid"
        other = {"installation_id": "00000000-0000-7000-8000-000000000000"}
        edited = await ada.post(f"{own}/edit", json={"params": other})
        assert edited.status_code == 201, edited.text
        new = edited.json()
        assert (new["version"], new["action"]["params"]) == (2, other)
        for old in (own, new["links"]["self"]):
            answer = await ada.post(f"{old}/approve", json={"hash": shown["action_sha256"]})
            assert problem_id(answer, 409) == "conflict"
        versions = (await ada.get(shown["links"]["versions"])).json()["items"]
    assert [(one["version"], one["state"]) for one in versions] == [
        (2, "waiting"),
        (1, "superseded"),
    ]


async def test_who_may_not_decide_is_refused_and_changes_nothing(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    shown = await _waiting(owner_client)
    own, yes = shown["links"]["self"], {"hash": shown["action_sha256"]}
    ada = await keys.member(tenant, f"ada@{tenant.slug}.example.org", "admin")
    tokens = {
        "viewer": await _person(keys, tenant, "vera", "viewer"),
        "member": await _person(keys, tenant, "max", "member"),
        "a key of nobody": await keys.user(tenant, "owner"),
        "a connector": await keys.connector(tenant),
        "without the scope": await keys.user(
            tenant, "admin", scopes=[Scope.DIRECTIVES_READ], user_id=ada
        ),
    }
    for who, token in tokens.items():
        async with calling(app, token) as client:
            for path, body in (("approve", yes), ("reject", {**yes, "reason": "no"})):
                answer = await client.post(f"{own}/{path}", json=body)
                assert problem_id(answer, 403) == "forbidden", who
    assert (await owner_client.get(own)).json() == shown


async def test_a_prefetched_link_changes_nothing(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    """Activepieces #14024: scanners of mail open every link, those that approve and those that do not."""
    shown = await _waiting(owner_client)
    async with calling(app, await _person(keys, tenant, "ada", "owner")) as ada:
        before = (await ada.get("/api/v1/signals", params={"limit": 200})).json()["items"]
        for link in shown["links"].values():
            assert (await ada.get(link)).status_code == 200
        for verb in ("approve", "reject", "edit"):
            path = f"{shown['links']['self']}/{verb}"
            query = {"hash": shown["action_sha256"], "reason": "x"}
            answer = await ada.get(path, params=query)
            assert problem_id(answer, 405) == "method-not-allowed"
            head = await ada.head(path, params=query)
            assert head.status_code == 405
        after = (await ada.get("/api/v1/signals", params={"limit": 200})).json()["items"]
    assert after == before
    assert (await owner_client.get(shown["links"]["self"])).json() == shown


@pytest.mark.parametrize("role", ["admin", "member"])
async def test_only_an_owner_changes_the_terms(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient, role: Role
) -> None:
    before = (await owner_client.get(POLICY)).json()
    assert (before["required"], before["changed_by"]) == (False, None)
    async with calling(app, await keys.user(tenant, role)) as client:
        answer = await client.put(POLICY, json={"required": True, "roles": ["owner"]})
        assert problem_id(answer, 403) == "forbidden"
    assert (await owner_client.get(POLICY)).json() == before


async def test_the_terms_are_what_was_put_and_hold_for_what_is_asked_next(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    terms = {"approvals": 2, "proposer_may_approve": False, "expires_after_seconds": 600}
    shown = await _waiting(owner_client, **terms)
    now = (await owner_client.get(POLICY)).json()
    assert {name: now[name] for name in terms} == terms
    assert {name: shown["policy"][name] for name in terms} == terms
    own, yes = shown["links"]["self"], {"hash": shown["action_sha256"]}
    states = []
    for name in ("ada", "ben"):
        async with calling(app, await _person(keys, tenant, name, "admin")) as person:
            states.append((await person.post(f"{own}/approve", json=yes)).json()["state"])
    assert states == ["waiting", "approved"]


async def test_terms_that_cannot_be_meant_and_unknown_types_are_told(
    owner_client: httpx.AsyncClient,
) -> None:
    good = {"required": True, "roles": ["owner"]}
    for bad in (
        {**good, "roles": []},
        {**good, "roles": ["viewer"]},
        {**good, "approvals": 0},
        {**good, "expires_after_seconds": 1},
        {**good, "colour": "red"},
        {"roles": ["owner"]},
    ):
        assert problem_id(await owner_client.put(POLICY, json=bad), 422) == "invalid"
    unknown = "/api/v1/approval-policies/nothing.here"
    assert problem_id(await owner_client.get(unknown), 404) == "not-found"
    assert problem_id(await owner_client.put(unknown, json=good), 404) == "not-found"


async def test_a_directive_that_waits_names_its_approval(
    owner_client: httpx.AsyncClient, app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    shown = await _waiting(owner_client)
    listed = (await owner_client.get("/api/v1/directives?state=awaiting_approval")).json()["items"]
    assert [one["approval_id"] for one in listed] == [shown["id"]]
    directive = (await owner_client.get(shown["links"]["directive"])).json()
    assert directive["approval_id"] == shown["id"]
    assert directive["links"]["approval"] == shown["links"]["self"]
    async with calling(app, await _person(keys, tenant, "ada", "admin")) as ada:
        await ada.post(f"{shown['links']['self']}/approve", json={"hash": shown["action_sha256"]})
    directive = (await owner_client.get(shown["links"]["directive"])).json()
    assert (directive["approval_id"], "approval" in directive["links"]) == (None, False)


async def test_where_notices_go_is_set_by_administrators_and_read_by_all(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient, database: Database
) -> None:
    nothing = (await owner_client.get(NOTICES)).json()
    assert (nothing["enabled"], nothing["installation_id"]) == (False, None)
    platform = Platform(database, keys.settings, tenant)
    installation = await platform.install()
    wanted = {"installation_id": str(installation.id), "remind_before_seconds": None}
    refused = await owner_client.put(NOTICES, json=wanted)
    assert problem_id(refused, 422) == "invalid"
    assert refused.json()["errors"][0]["pointer"] == "/installation_id"
    with running_mattermost() as mattermost:
        await platform.connect(installation.id, mattermost.hook_url)
    async with calling(app, await _person(keys, tenant, "max", "member")) as member:
        assert problem_id(await member.put(NOTICES, json=wanted), 403) == "forbidden"
    put = await owner_client.put(NOTICES, json=wanted)
    assert put.status_code == 200, put.text
    assert (put.json()["enabled"], put.json()["most_per_hour"]) == (True, 20)
    async with calling(app, await _person(keys, tenant, "vera", "viewer")) as viewer:
        assert (await viewer.get(NOTICES)).json() == put.json()
    await _waiting(owner_client)
    sent = (await owner_client.get(put.json()["links"]["sent"])).json()["items"]
    assert [one["params"]["notice"] for one in sent] == ["opened"]
