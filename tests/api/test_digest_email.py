"""The test e-mail over HTTP: to active admins alone, and not often."""

import httpx
import pytest

from fleetprompt.db.engine import Database
from fleetprompt.tenants import members
from fleetprompt.tenants.keys import Role
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, problem_id
from tests.doubles.smtp import MailServer
from tests.packages.installed import Platform

PATH = "/api/v1/digest/test-email"


@pytest.fixture
async def platform(database: Database, keys: Keys, tenant: Tenant) -> Platform:
    return Platform(database, keys.settings, tenant)


@pytest.fixture
async def admins(platform: Platform) -> list[str]:
    """Two active admins, and a viewer who is none."""
    people: list[tuple[str, Role]] = [("ada", "owner"), ("ben", "admin"), ("vic", "viewer")]
    found = []
    async with platform.database.platform() as session:
        for name, role in people:
            email = f"{name}@{platform.tenant.slug}.example"
            await members.add_member(session, platform.tenant, email=email, role=role)
            found.append(email)
    return found


async def connect(client: httpx.AsyncClient, platform: Platform, smtp: MailServer) -> None:
    answer = await client.post("/api/v1/packages/email_daily_digest/install")
    assert answer.status_code == 202, answer.text
    await platform.work()
    connected = await client.post(
        f"{answer.json()['links']['installation']}/connections",
        json={"kind": "smtp", "url": f"smtp://127.0.0.1:{smtp.port}"},
    )
    assert connected.json()["verification"]["state"] == "connected", connected.text


async def test_without_the_package_there_is_nothing_to_test(
    owner_client: httpx.AsyncClient,
) -> None:
    assert problem_id(await owner_client.post(PATH, json={}), 404) == "not-found"


async def test_a_test_goes_to_the_named_admins_and_tells_how_it_went(
    owner_client: httpx.AsyncClient, platform: Platform, smtp: MailServer, admins: list[str]
) -> None:
    await connect(owner_client, platform, smtp)
    answer = await owner_client.post(PATH, json={"to": [admins[1]]})
    assert answer.status_code == 202, answer.text
    await platform.work()
    (mail,) = smtp.mails
    assert mail.recipients == [admins[1]]
    told = await owner_client.get(f"/api/v1/executions/{answer.json()['execution_id']}")
    assert told.json()["result"]["ledger_state"] == "posted"


@pytest.mark.parametrize("stranger", ["x@evil.example", "{admin}.evil.test", "vic@{domain}"])
async def test_nobody_else_can_be_named(
    owner_client: httpx.AsyncClient,
    platform: Platform,
    smtp: MailServer,
    admins: list[str],
    stranger: str,
) -> None:
    """No open relay: external, look-alike, and a member who is no admin."""
    await connect(owner_client, platform, smtp)
    named = stranger.format(admin=admins[0], domain=admins[0].split("@")[1])
    answer = await owner_client.post(PATH, json={"to": [admins[0], named]})
    assert problem_id(answer, 422) == "invalid"
    assert answer.json()["errors"][0]["pointer"] == "/to/1"
    assert named not in answer.text
    await platform.work()
    assert smtp.mails == []


async def test_tests_are_limited_and_their_failures_not_echoed(
    owner_client: httpx.AsyncClient, platform: Platform, smtp: MailServer, admins: list[str]
) -> None:
    await connect(owner_client, platform, smtp)
    smtp.refusals["MAIL"] = "550 canary-of-the-server"
    answers = [await owner_client.post(PATH, json={}) for _ in range(4)]
    assert [one.status_code for one in answers] == [202, 202, 202, 429]
    assert int(answers[-1].headers["retry-after"]) > 3000
    await platform.work()
    for answer in answers[:3]:
        told = await owner_client.get(answer.json()["links"]["directive"])
        assert (told.json()["state"], told.json()["error_kind"]) == ("failed", "validation")
        assert "canary" not in told.text
    assert smtp.mails == []
