"""Packages over HTTP: install, connect, configure, run, and what the ledger says."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.tenants.service import Tenant
from tests.api.support import DIGEST, Keys, calling, problem_id, signal
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import Platform


@pytest.fixture
async def platform(database: Database, keys: Keys, tenant: Tenant) -> Platform:
    """What works off the directives that the API asks for."""
    return Platform(database, keys.settings, tenant)


@pytest.fixture
async def installation(owner_client: httpx.AsyncClient, platform: Platform) -> str:
    """The URL of an installed digest."""
    answer = await owner_client.post(f"/api/v1/packages/{DIGEST}/install")
    assert answer.status_code == 202, answer.text
    await platform.work()
    url: str = answer.json()["links"]["installation"]
    return url


async def test_the_catalogue_shows_each_package_and_what_is_installed(
    owner_client: httpx.AsyncClient, installation: str
) -> None:
    listed = (await owner_client.get("/api/v1/packages")).json()["items"]
    digest = next(one for one in listed if one["slug"] == DIGEST)
    assert digest["links"]["installation"] == installation
    assert digest["config"]["type"] == "object"
    assert (await owner_client.get(digest["links"]["self"])).json() == digest
    assert problem_id(await owner_client.get("/api/v1/packages/unknown"), 404) == "not-found"


async def test_t44_fifty_installs_at_once_are_one_directive_and_one_installation(
    owner_client: httpx.AsyncClient,
) -> None:
    answers = await asyncio.gather(
        *(owner_client.post(f"/api/v1/packages/{DIGEST}/install", json={}) for _ in range(50))
    )
    assert {one.status_code for one in answers} == {202}
    assert len({one.json()["directive_id"] for one in answers}) == 1
    assert len({one.json()["installation_id"] for one in answers}) == 1
    installed = (await owner_client.get("/api/v1/installations")).json()["items"]
    directives = (await owner_client.get("/api/v1/directives?type=package.install")).json()["items"]
    assert (len(installed), len(directives)) == (1, 1)


async def test_from_install_to_message_and_its_story(
    owner_client: httpx.AsyncClient,
    installation: str,
    platform: Platform,
    mattermost: RunningMattermost,
) -> None:
    canary = mattermost.hook_url.rsplit("/", 1)[-1]
    answers = []

    async def call(method: str, url: str, status: int, **body: Any) -> dict[str, Any]:
        answer = await owner_client.request(method, url, **body)
        assert answer.status_code == status, answer.text
        answers.append(answer.text)
        content: dict[str, Any] = answer.json()
        return content

    await call("POST", "/api/v1/signals", 201, json=signal(type="agent.execution.failed"))
    connected = await call(
        *("POST", f"{installation}/connections", 201),
        json={"kind": "mattermost", "url": mattermost.hook_url},
    )
    assert connected["verification"]["state"] == "connected"
    assert connected["installation"]["state"] == "connected"
    await call(
        *("PUT", f"{installation}/config", 202),
        json={"config": {"timezone": "Europe/Berlin", "schedule_time": "07:30"}},
    )
    await platform.work()
    assert (await call("GET", installation, 200))["config"]["timezone"] == "Europe/Berlin"
    run = await call("POST", f"{installation}/run", 202)
    assert run["state"] == "pending"
    await platform.work(rounds=2)
    assert len(mattermost.posts) == 1
    directive = await call("GET", run["links"]["directive"], 200)
    assert directive["state"] == "succeeded"
    assert [one["to_state"] for one in directive["transitions"]][-1] == "succeeded"
    execution = await call("GET", run["links"]["execution"], 200)
    assert execution["state"] == "completed"
    assert execution["directive_id"] == run["directive_id"]
    assert execution["logs"]
    sent = await call("GET", f"{installation}/outbound-messages", 200)
    assert [one["state"] for one in sent["items"]] == ["posted"]
    found = await call("GET", directive["links"]["signals"], 200)
    assert "directive.succeeded" in [one["type"] for one in found["items"]]
    assert not [one for one in answers if canary in one]  # trap T25


async def test_a_secret_is_in_no_table_and_no_answer_even_when_it_is_refused(
    owner_client: httpx.AsyncClient,
    installation: str,
    owner: Database,
    tenant: Tenant,
    caplog: pytest.LogCaptureFixture,
) -> None:
    canary = "canary7secret7canary7secret"
    caplog.set_level("DEBUG")
    for body in (
        {"kind": "mattermost", "url": f"http://127.0.0.1:1/hooks/{canary}"},
        {"kind": "mattermost", "url": f"nonsense {canary}"},
        {"kind": "mattermost", "url": {"a": canary}},
        {"kind": "gmail", "url": f"https://chat.example.org/hooks/{canary}"},
        {"kind": "mattermost", "url": f"https://x/{canary}", "surprise": canary},
    ):
        answer = await owner_client.post(f"{installation}/connections", json=body)
        assert answer.status_code in (201, 422), answer.text
        assert canary not in answer.text
    async with owner.platform() as session:
        tables = await session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = :schema"),
            {"schema": tenant.schema},
        )
        for table in list(tables):
            found = await session.scalar(
                text(f'SELECT count(*) FROM "{tenant.schema}"."{table}" t WHERE t::text LIKE :c'),
                {"c": f"%{canary}%"},
            )
            assert found == 0, table
    assert canary not in caplog.text


async def test_a_run_is_answered_once_under_one_idempotency_key(
    owner_client: httpx.AsyncClient,
    installation: str,
    mattermost: RunningMattermost,
    database: Database,
    tenant: Tenant,
) -> None:
    url = f"{installation}/connections"
    await owner_client.post(url, json={"kind": "mattermost", "url": mattermost.hook_url})
    under_one = {"Idempotency-Key": "click-1"}
    answers = await asyncio.gather(
        *(owner_client.post(f"{installation}/run", headers=under_one) for _ in range(10))
    )
    assert {one.status_code for one in answers} == {202}
    assert len({one.json()["directive_id"] for one in answers}) == 1
    assert len({one.json()["execution_id"] for one in answers}) == 1
    another = await owner_client.post(f"{installation}/run", headers={"Idempotency-Key": "2"})
    assert another.json()["directive_id"] != answers[0].json()["directive_id"]
    other_request = await owner_client.post(f"{installation}/disable", headers=under_one)
    assert problem_id(other_request, 422) == "idempotency-mismatch"
    async with database.tenant(tenant.schema) as session:
        kept = await session.scalar(
            text("SELECT count(*) FROM signals WHERE type = 'api.request.accepted'")
        )
    assert kept == 2


async def test_an_idempotency_key_belongs_to_its_tenant_and_its_body(
    app: FastAPI, keys: Keys, tenant: Tenant, new_tenant: Any
) -> None:
    url = f"/api/v1/packages/{DIGEST}/install"
    seen = []
    for one in (tenant, await new_tenant()):
        async with calling(app, await keys.user(one)) as client:
            answer = await client.post(url, json={}, headers={"Idempotency-Key": "same"})
            assert answer.status_code == 202, answer.text
            seen.append(answer.json()["directive_id"])
            changed = {"config": {"schedule_time": "10:00"}}
            again = await client.post(url, json=changed, headers={"Idempotency-Key": "same"})
            assert problem_id(again, 422) == "idempotency-mismatch"
            for bad in ("", "x" * 256, "a b", "ä"):
                headers = {b"Idempotency-Key": bad.encode()}
                refused = await client.post(url, json={}, headers=headers)
                assert problem_id(refused, 422) == "invalid"
    assert len(set(seen)) == 2


async def test_running_too_often_says_when_again(
    owner_client: httpx.AsyncClient,
    installation: str,
    mattermost: RunningMattermost,
    keys: Keys,
) -> None:
    url = f"{installation}/connections"
    await owner_client.post(url, json={"kind": "mattermost", "url": mattermost.hook_url})
    answers = [
        await owner_client.post(f"{installation}/run")
        for _ in range(keys.settings.manual_runs_per_hour + 1)
    ]
    assert [one.status_code for one in answers[:-1]] == [202] * (len(answers) - 1)
    assert problem_id(answers[-1], 429) == "rate-limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600


async def test_disable_enable_and_remove(
    owner_client: httpx.AsyncClient, installation: str, platform: Platform
) -> None:
    for action, state in (("disable", "disabled"), ("enable", "installed")):
        answer = await owner_client.post(f"{installation}/{action}")
        assert answer.status_code == 202, answer.text
        assert answer.json()["directive_id"] in answer.json()["links"]["directive"]
        await platform.work()
        assert (await owner_client.get(installation)).json()["state"] == state
    removed = await owner_client.delete(installation)
    assert removed.status_code == 202
    await platform.work()
    assert problem_id(await owner_client.get(installation), 404) == "not-found"
    again = await owner_client.get("/api/v1/installations")
    assert again.json()["items"] == []


async def test_what_is_not_installed_yet_cannot_be_run(owner_client: httpx.AsyncClient) -> None:
    asked = await owner_client.post(f"/api/v1/packages/{DIGEST}/install")
    answer = await owner_client.post(f"{asked.json()['links']['installation']}/run")
    assert problem_id(answer, 409) == "conflict"


async def connect_bot(
    client: httpx.AsyncClient, installation: str, mattermost: RunningMattermost, platform: Platform
) -> httpx.Response:
    config = {"mode": "bot", "team": "operations", "channel": "fleet-reports"}
    await client.put(f"{installation}/config", json={"config": config})
    await platform.work()
    body = {
        "kind": "mattermost_token",
        "url": mattermost.base_url,
        "token": mattermost.state.bot_token,
    }
    return await client.post(f"{installation}/connections", json=body)


async def test_a_token_is_connected_checked_tried_and_never_given_back(
    owner_client: httpx.AsyncClient,
    installation: str,
    mattermost: RunningMattermost,
    platform: Platform,
) -> None:
    connected = await connect_bot(owner_client, installation, mattermost, platform)
    assert connected.status_code == 201, connected.text
    assert connected.json()["verification"]["state"] == "connected"
    checked = (await owner_client.post(f"{installation}/check")).json()
    assert (checked["ok"], [one["kind"] for one in checked["findings"]]) == (
        True,
        ["mattermost_token"],
    )
    assert "nothing was posted" in checked["findings"][0]["message"]
    assert mattermost.posts == []
    asked = await owner_client.post(f"{installation}/test-post", headers={"Idempotency-Key": "t"})
    again = await owner_client.post(f"{installation}/test-post", headers={"Idempotency-Key": "t"})
    assert asked.status_code == 202, asked.text
    assert asked.json()["directive_id"] == again.json()["directive_id"]
    await platform.work()
    (post,) = mattermost.posts
    listed = (await owner_client.get(f"{installation}/outbound-messages")).json()["items"]
    assert [(one["state"], one["remote_id"]) for one in listed] == [("posted", post.id)]
    assert listed[0]["permalink"].endswith(f"/operations/pl/{post.id}")
    shown = (await owner_client.get(installation)).text
    for text_ in (connected.text, str(checked), asked.text, str(listed), shown):
        assert mattermost.state.bot_token not in text_


async def test_a_check_without_a_connection_and_a_token_that_cannot_be_one(
    owner_client: httpx.AsyncClient, installation: str
) -> None:
    assert problem_id(await owner_client.post(f"{installation}/check"), 409) == "conflict"
    for body in (
        {"kind": "mattermost_token", "url": "https://chat.example.org", "token": "canary"},
        {"kind": "mattermost_token", "url": "https://chat.example.org"},
        {"kind": "carrier_pigeon", "url": "https://chat.example.org"},
    ):
        refused = await owner_client.post(f"{installation}/connections", json=body)
        assert problem_id(refused, 422) == "invalid"
        assert "canary" not in refused.text


async def test_test_posts_have_a_limit_of_their_own(
    owner_client: httpx.AsyncClient,
    installation: str,
    mattermost: RunningMattermost,
    platform: Platform,
    keys: Keys,
) -> None:
    """Trap 32, over HTTP: exactly the allowed number whatever the concurrency."""
    await connect_bot(owner_client, installation, mattermost, platform)
    allowed = keys.settings.manual_runs_per_hour
    answers = await asyncio.gather(
        *(owner_client.post(f"{installation}/test-post") for _ in range(allowed + 4))
    )
    assert sorted(one.status_code for one in answers) == [202] * allowed + [429] * 4
    assert (await owner_client.post(f"{installation}/run")).status_code == 202


async def test_an_unknown_message_is_settled_over_http(
    owner_client: httpx.AsyncClient,
    installation: str,
    mattermost: RunningMattermost,
    platform: Platform,
) -> None:
    url = f"{installation}/connections"
    await owner_client.post(url, json={"kind": "mattermost", "url": mattermost.hook_url})
    mattermost.set(fault="drop_before_save", fault_requests=1)
    await owner_client.post(f"{installation}/run")
    await platform.work()
    (message,) = (await owner_client.get(f"{installation}/outbound-messages")).json()["items"]
    assert message["state"] == "unknown"
    settle = f"{installation}/outbound-messages/{message['id']}/settle"
    assert problem_id(await owner_client.post(settle, json={"action": "look"}), 409) == "conflict"
    assert problem_id(await owner_client.post(settle, json={"action": "x"}), 422) == "invalid"
    asked = await owner_client.post(settle, json={"action": "post_again"})
    assert asked.status_code == 202, asked.text
    await platform.work()
    (message,) = (await owner_client.get(f"{installation}/outbound-messages")).json()["items"]
    assert (message["state"], message["resolution"]) == ("posted", "posted_again")
    assert message["links"]["resolved_by"] == asked.json()["links"]["directive"]
    assert len(mattermost.posts) == 1
