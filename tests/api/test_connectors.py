"""Connectors over HTTP: paired once by a code, known by what they say, out within a second of revoking."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, func, select, update

from fleetprompt.connectors.models import Connector, PairingCode
from fleetprompt.connectors.pairing import MOST_FAILURES, MOST_TRIES
from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.models import Directive
from fleetprompt.errors import InvalidError
from fleetprompt.packages.models import Installation
from fleetprompt.signals.models import Signal
from fleetprompt.tenants.models import ApiKey
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, bearer, calling, problem_id

NewTenant = Callable[[], Awaitable[Tenant]]

PAIR = "/api/edge/v1/pair"
PACKAGE = "proton_mail_edge_connector"
MAIL = {"to": ["ann@example.org"], "subject": "Hello", "text_body": "How are you?"}


async def made(client: httpx.AsyncClient, label: str = "Support mailbox") -> dict[str, Any]:
    """A new connector with its code."""
    answer = await client.post("/api/v1/connectors", json={"label": label})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def tried(app: FastAPI, code: str, address: str = "192.0.2.1", **rest: Any) -> httpx.Response:
    """One try at a code from an address."""
    transport = httpx.ASGITransport(app=app, client=(address, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://api.test") as client:
        return await client.post(PAIR, json={"code": code, **rest})


async def paired(
    app: FastAPI, client: httpx.AsyncClient, label: str = "Support mailbox"
) -> tuple[str, str]:
    """A connector's id and key."""
    new = await made(client, label)
    answer = await tried(app, new["pairing"]["code"], version="1.0.0", account="ops@example.org")
    assert answer.status_code == 200, answer.text
    return answer.json()["connector_id"], answer.json()["key"]


async def said(
    app: FastAPI, key: str, kind: str, connector_id: str, data: dict[str, Any], **rest: Any
) -> httpx.Response:
    """A signal that the connector sends."""
    body = {
        "type": kind,
        "source": "edge:proton_mail",
        "occurred_at": datetime.now(UTC).isoformat(),
        "data": data,
        "metadata": {"schema_version": 1, "connector_id": connector_id},
        "dedupe_key": str(uuid4()),
        **rest,
    }
    async with calling(app, key) as client:
        return await client.post("/api/edge/v1/signals", json=body)


BEAT = {
    "version": "1.0.0",
    "uptime_seconds": 61,
    "last_poll_at": "2026-01-06T09:00:00Z",
    "last_post_at": None,
    "queue": {"signals": 2, "bytes": 900, "dead_letters": 0},
    "problems": [],
}
PROBLEM = {"place": "bridge", "kind": "network", "code": "bridge_unreachable", "since": "…"}
ERROR = {**PROBLEM, "message": "Nothing answers at Bridge's address."}


async def beat(app: FastAPI, key: str, connector_id: str, **changed: Any) -> None:
    answer = await said(app, key, "connector.heartbeat", connector_id, {**BEAT, **changed})
    assert answer.status_code == 201, answer.text


async def test_a_code_is_exchanged_for_a_key_that_works(
    app: FastAPI, owner_client: httpx.AsyncClient, tenant: Tenant
) -> None:
    new = await made(owner_client)
    code = new["pairing"]["code"]
    assert new["connector"]["state"] == "requested"
    assert new["pairing"]["command"].startswith(f"fleetprompt-edge pair {code} --url http")
    typed = f"  {code.lower().replace('-', ' ')} "
    answer = await tried(app, typed, version="0.0.9", account="ops@example.org", device_id="d")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    got = answer.json()
    assert got["tenant"] == {"id": str(tenant.id), "slug": tenant.slug}
    assert got["connector_id"] == new["connector"]["id"]
    assert "older than" in got["warning"]
    assert got["expects"]["heartbeat_seconds"] * 5 == got["expects"]["silent_after_seconds"]
    async with calling(app, got["key"]) as connector:
        me = (await connector.get("/api/v1/me")).json()
        assert me["connector_id"] == got["connector_id"]
        assert me["scopes"] == ["directives:execute", "signals:write"]
        polled = await connector.get("/api/edge/v1/directives")
        assert (polled.status_code, polled.json()) == (200, [])
    shown = (await owner_client.get(f"/api/v1/connectors/{got['connector_id']}")).json()
    assert shown["state"] == "paired"
    assert shown["account"] == "ops@example.org"
    assert "0.0.9" in shown["warnings"][0]


async def test_nothing_shows_a_code_or_a_key_again(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    new = await made(owner_client)
    code = new["pairing"]["code"]
    got = (await tried(app, code)).json()
    listed = await owner_client.get("/api/v1/connectors")
    for secret in (code, code.replace("-", ""), got["key"]):
        assert secret not in listed.text
    async with database.tenant(tenant.schema) as session:
        for signal in await session.scalars(select(Signal)):
            assert code not in str(signal.data)
            assert got["key"] not in str(signal.data)


async def test_twenty_who_exchange_one_code_at_once_get_one_key(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    new = await made(owner_client)
    answers = await asyncio.gather(
        *(tried(app, new["pairing"]["code"], f"198.51.100.{n}") for n in range(20))
    )
    assert sorted(one.status_code for one in answers) == [200] + [401] * 19
    assert await _live_keys(database, tenant, new["connector"]["id"]) == 1


async def test_wrong_used_expired_and_impossible_codes_are_answered_alike(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database
) -> None:
    used, expired, live = [(await made(owner_client))["pairing"]["code"] for _ in range(3)]
    assert (await tried(app, used)).status_code == 200
    async with database.platform() as session:
        await session.execute(
            update(PairingCode)
            .where(PairingCode.connector_id == UUID(await _connector_of(owner_client, 1)))
            .values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        )
    wrong = live[:5] + ("AAAA-AAAA" if not live.endswith("AAAA-AAAA") else "BBBB-BBBB")
    hostile = ["x", "'; DROP TABLE connectors; --", "\u202eABCD", "🔑" * 12, "ABCD-EFGH-JKL\u0130"]
    seen = set()
    for number, code in enumerate([used, expired, wrong, *hostile]):
        answer = await tried(app, code, f"203.0.113.{number}")
        assert problem_id(answer, 401) == "unauthenticated"
        content = answer.json()
        del content["instance"]
        seen.add((str(content), *sorted(set(answer.headers) - {"x-request-id"})))
        assert code not in answer.text or len(code) == 1
    assert len(seen) == 1
    assert (await tried(app, live)).status_code == 200


async def _connector_of(client: httpx.AsyncClient, back: int) -> str:
    """The id of the connector that was made ``back`` before the newest."""
    found = (await client.get("/api/v1/connectors")).json()["items"]
    return str(found[back]["id"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": None},
        {"code": 5},
        {"code": ["ABCD"]},
        {"code": ""},
        {"code": "A" * 65},
        {"code": "ABCD\x00"},
        {"code": "ABCD", "tenant": "acme"},
        {"code": "ABCD", "version": "1" * 65},
        {"code": "ABCD", "account": "\x00"},
    ],
)
async def test_what_is_no_request_is_refused_before_anything_counts(
    app: FastAPI, body: dict[str, Any]
) -> None:
    async with calling(app) as client:
        answer = await client.post(PAIR, json=body)
    assert problem_id(answer, 422) == "invalid"


async def test_the_bound_on_tries_at_one_code_is_exact_when_all_come_at_once(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    """T29: a code that is guessed at dies, whoever guesses; no try slips through by being early."""
    code = (await made(owner_client))["pairing"]["code"]
    wrong = [f"{code[:5]}{'AAAB' if i % 2 else 'AAAC'}-{'AAAA'}" for i in range(MOST_TRIES - 1)]
    spread = iter(f"198.51.100.{n}" for n in range(100))
    await asyncio.gather(*(tried(app, one, next(spread)) for one in wrong))
    assert (await tried(app, code, next(spread))).status_code == 200

    code = (await made(owner_client))["pairing"]["code"]
    await asyncio.gather(
        *(tried(app, f"{code[:5]}AAAA-BBBB", next(spread)) for _ in range(MOST_TRIES))
    )
    assert problem_id(await tried(app, code, next(spread)), 401) == "unauthenticated"


async def test_the_bound_on_tries_from_one_address_is_exact_when_all_come_at_once(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    """T29, and an address that is out keeps nobody else out."""
    code = (await made(owner_client))["pairing"]["code"]
    answers = await asyncio.gather(
        *(
            tried(app, f"AAAA-BBBB-{n:04}", "2001:db8::%x" % (n + 1))
            for n in range(MOST_FAILURES + 15)
        )
    )
    refused = [one for one in answers if one.status_code == 429]
    assert len(refused) == 15
    assert problem_id(refused[0], 429) == "rate-limited"
    assert problem_id(await tried(app, code, "2001:db8::ffff"), 429) == "rate-limited"
    assert (await tried(app, code, "2001:db8:0:1::1")).status_code == 200


async def test_pairing_well_costs_an_address_nothing(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    for number in range(MOST_FAILURES + 2):
        new = await made(owner_client, f"mailbox {number}")
        assert (await tried(app, new["pairing"]["code"], "192.0.2.77")).status_code == 200


async def test_pairing_again_ends_the_former_key(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    connector_id, key = await paired(app, owner_client)
    first = (await owner_client.post(f"/api/v1/connectors/{connector_id}/code")).json()
    second = (await owner_client.post(f"/api/v1/connectors/{connector_id}/code")).json()
    assert problem_id(await tried(app, first["pairing"]["code"]), 401) == "unauthenticated"
    async with calling(app, key) as connector:
        assert (await connector.get("/api/v1/me")).status_code == 200
    again = await tried(app, second["pairing"]["code"])
    assert again.json()["connector_id"] == connector_id
    assert await _refused_within(app, key, 1.0)
    assert await _live_keys(database, tenant, connector_id) == 1


async def test_codes_of_one_connector_made_at_once_leave_one_that_works(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    connector_id = (await made(owner_client))["connector"]["id"]
    answers = await asyncio.gather(
        *(owner_client.post(f"/api/v1/connectors/{connector_id}/code") for _ in range(8))
    )
    codes = [one.json()["pairing"]["code"] for one in answers]
    tries = [await tried(app, code, f"192.0.2.{n}") for n, code in enumerate(codes)]
    assert sorted(one.status_code for one in tries) == [200] + [401] * 7


async def test_a_code_leads_to_its_own_tenant_alone(
    app: FastAPI, keys: Keys, owner_client: httpx.AsyncClient, new_tenant: NewTenant
) -> None:
    connector_id, key = await paired(app, owner_client)
    other = await new_tenant()
    async with calling(app, await keys.user(other)) as stranger:
        assert (await stranger.get("/api/v1/connectors")).json()["items"] == []
        for method, path in (("GET", ""), ("POST", "/code"), ("POST", "/revoke")):
            answer = await stranger.request(method, f"/api/v1/connectors/{connector_id}{path}")
            assert problem_id(answer, 404) == "not-found"
    assert (await said(app, key, "connector.heartbeat", str(uuid4()), {})).status_code == 422
    async with calling(app, key) as connector:
        assert (await connector.get("/api/v1/me")).json()["connector_id"] == connector_id


async def test_a_revoked_connector_is_out_within_a_second_and_what_waits_for_it_is_cancelled(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    """T29: the key that every process has in its cache, and a poll that waits, end too."""
    connector_id, key = await paired(app, owner_client)
    await beat(app, key, connector_id)
    asked = await _asked(database, tenant, connector_id)
    other = await _asked(database, tenant, str(uuid4()))
    async with calling(app, key) as connector:
        poll = asyncio.create_task(connector.get("/api/edge/v1/directives?wait=20"))
        await asyncio.sleep(0.3)
        answer = await owner_client.post(f"/api/v1/connectors/{connector_id}/revoke")
        revoked_at = time.monotonic()
        assert answer.json()["state"] == "revoked"
        assert problem_id(await poll, 401) == "unauthenticated"
        # The look at the key comes twice a second, beside an answer from memory for half a second.
        assert time.monotonic() - revoked_at < 3
    assert await _refused_within(app, key, 1.0)
    async with database.tenant(tenant.schema) as session:
        assert (await session.get_one(Directive, asked)).state == "cancelled"
        assert (await session.get_one(Directive, other)).state == "awaiting_approval"
        told = await session.scalars(
            select(Signal.type).where(Signal.type.in_(("connector.revoked", "directive.cancelled")))
        )
        assert sorted(told) == ["connector.revoked", "directive.cancelled"]
    with pytest.raises(InvalidError, match="revoked"):
        await _asked(database, tenant, connector_id, "once more")
    again = await owner_client.post(f"/api/v1/connectors/{connector_id}/revoke")
    assert again.json()["revoked_at"] == answer.json()["revoked_at"]
    code = await owner_client.post(f"/api/v1/connectors/{connector_id}/code")
    assert problem_id(code, 409) == "conflict"


async def test_revoking_ends_a_code_that_nobody_has_used(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    new = await made(owner_client)
    await owner_client.post(f"/api/v1/connectors/{new['connector']['id']}/revoke")
    assert problem_id(await tried(app, new["pairing"]["code"]), 401) == "unauthenticated"


async def test_however_revoking_and_pairing_meet_no_key_outlives_it(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    for number in range(6):
        new = await made(owner_client)
        connector_id = new["connector"]["id"]
        path = f"/api/v1/connectors/{connector_id}"
        await asyncio.gather(
            tried(app, new["pairing"]["code"], f"192.0.2.{number}"),
            owner_client.post(f"{path}/revoke"),
            owner_client.post(f"{path}/code"),
        )
        assert await _live_keys(database, tenant, connector_id) == 0
        async with database.platform() as session:
            left = await session.scalar(
                select(func.count()).where(PairingCode.connector_id == UUID(connector_id))
            )
        assert left == 0
        assert (await owner_client.get(path)).json()["state"] == "revoked"


async def test_only_administrators_make_and_revoke(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    async with calling(app, await keys.user(tenant, "member")) as member:
        assert (await member.get("/api/v1/connectors")).status_code == 200
        answer = await member.post("/api/v1/connectors", json={"label": "mine"})
        assert problem_id(answer, 403) == "forbidden"
    async with calling(app, await keys.user(tenant, "admin")) as admin:
        assert (await admin.post("/api/v1/connectors", json={"label": "ours"})).status_code == 201
    async with calling(app, await keys.connector(tenant)) as connector:
        answer = await connector.post("/api/v1/connectors", json={"label": "own"})
        assert problem_id(answer, 403) == "forbidden"


@pytest.mark.parametrize(
    "label", ["", " ", "a\nb", "\u202egnp.exe", "x\x00", "\u200b", "a" * 101, "\ud800"]
)
async def test_a_label_that_could_deceive_is_refused(
    owner_client: httpx.AsyncClient, label: str
) -> None:
    raw = json.dumps({"label": label})
    answer = await owner_client.post(
        "/api/v1/connectors", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text


async def test_the_first_heartbeat_connects_and_errors_degrade_until_all_is_well(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    installation_id = await installed(database, tenant)
    connector_id, key = await paired(app, owner_client)
    path = f"/api/v1/connectors/{connector_id}"

    async def states() -> tuple[str, str, str | None]:
        shown = (await owner_client.get(path)).json()
        assert shown["installation_id"] == str(installation_id)
        async with database.tenant(tenant.schema) as session:
            found = await session.get_one(Installation, installation_id)
            return shown["state"], found.state, found.last_error

    assert await states() == ("paired", "installed", None)
    await beat(app, key, connector_id)
    assert await states() == ("connected", "connected", None)
    shown = (await owner_client.get(path)).json()
    assert shown["heartbeat"]["queued_signals"] == 2
    assert shown["heartbeat"]["last_poll_at"] == "2026-01-06T09:00:00Z"
    assert shown["warnings"] == []

    await said(app, key, "connector.error", connector_id, ERROR)
    assert await states() == ("connected", "degraded", ERROR["message"])
    shown = (await owner_client.get(path)).json()["last_error"]
    assert (shown["kind"], shown["place"]) == ("network", "bridge")
    assert shown["means"] == "not reached, or no answer"
    await beat(app, key, connector_id, problems=[PROBLEM])
    assert (await states())[1] == "degraded"
    await beat(app, key, connector_id)
    assert (await states())[:2] == ("connected", "connected")


async def test_an_installation_is_as_well_as_the_worst_of_its_connectors(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    installation_id = await installed(database, tenant)
    one, other = [await paired(app, owner_client, name) for name in ("one", "other")]
    await beat(app, one[1], one[0])
    await said(app, other[1], "connector.error", other[0], ERROR)
    await beat(app, one[1], one[0])
    assert await _installation_state(database, tenant, installation_id) == "degraded"
    await owner_client.post(f"/api/v1/connectors/{other[0]}/revoke")
    await beat(app, one[1], one[0])
    assert await _installation_state(database, tenant, installation_id) == "connected"


async def test_what_is_switched_off_stays_off_whatever_a_connector_says(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    installation_id = await installed(database, tenant, state="disabled")
    connector_id, key = await paired(app, owner_client)
    await beat(app, key, connector_id)
    await said(app, key, "connector.error", connector_id, ERROR)
    assert await _installation_state(database, tenant, installation_id) == "disabled"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"version": {"a": 1}, "queue": [], "problems": {"place": 1}, "uptime_seconds": "long"},
        {
            "version": "9" * 5000,
            "queue": {"signals": -1, "bytes": 1e300},
            "problems": [1, "x", None],
        },
        {"problems": [{"place": "<b>" * 500, "kind": {}, "code": [1]}] * 30},
        {"last_poll_at": "9999-12-31T23:59:59-14:00", "last_post_at": "0001-01-01T00:00:00+14:00"},
        {"last_poll_at": "yesterday", "uptime_seconds": 10**300, "queue": None, "problems": None},
        {"version": "1.0.0\u202e", "queue": {"dead_letters": 3}},
    ],
)
async def test_whatever_a_connector_says_is_stored_kept_in_bounds_and_shown(
    app: FastAPI,
    owner_client: httpx.AsyncClient,
    database: Database,
    tenant: Tenant,
    data: dict[str, Any],
) -> None:
    """T31: no heartbeat is lost, none makes the row large, and none breaks the pages that show it."""
    await installed(database, tenant)
    connector_id, key = await paired(app, owner_client)
    for kind in ("connector.heartbeat", "connector.error"):
        answer = await said(app, key, kind, connector_id, data)
        assert answer.status_code == 201, answer.text
    async with database.tenant(tenant.schema) as session:
        (kept,) = await session.scalars(select(Connector))
    assert len(str(kept.heartbeat)) < 8000
    assert len(kept.version or "") <= 64
    assert len(kept.last_error or "") <= 500
    shown = await owner_client.get(f"/api/v1/connectors/{connector_id}")
    assert shown.status_code == 200, shown.text
    assert shown.json()["state"] == "connected"


async def test_heartbeats_and_errors_of_many_connectors_in_any_order_never_block_one_another(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    """T7: flushes that hear of the same connectors in other orders wait, and none is given up."""
    known = [await paired(app, owner_client, str(n)) for n in range(6)]
    await asyncio.gather(
        *(
            said(app, key, kind, connector_id, {**BEAT, **ERROR}, dedupe_key=f"{order}:{turn}:{n}")
            for turn in range(6)
            for n, (connector_id, key) in enumerate(known)
            for kind, order in (("connector.heartbeat", n), ("connector.error", 9 - n))
        )
    )
    shown = (await owner_client.get("/api/v1/connectors")).json()["items"]
    assert {one["state"] for one in shown} == {"connected"}


async def test_heartbeats_cost_no_directive(
    app: FastAPI, owner_client: httpx.AsyncClient, database: Database, tenant: Tenant
) -> None:
    await installed(database, tenant)
    connector_id, key = await paired(app, owner_client)
    for _ in range(3):
        await beat(app, key, connector_id)
    async with database.tenant(tenant.schema) as session:
        assert await session.scalar(select(func.count()).select_from(Directive)) == 0


async def test_a_connectors_heartbeat_for_another_is_refused(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    one, other = [await paired(app, owner_client, name) for name in ("one", "other")]
    answer = await said(app, one[1], "connector.heartbeat", other[0], BEAT)
    assert problem_id(answer, 422) == "invalid"
    shown = (await owner_client.get(f"/api/v1/connectors/{other[0]}")).json()
    assert shown["state"] == "paired"


async def test_an_approved_mail_reaches_the_connector_and_no_other(
    app: FastAPI, owner_client: httpx.AsyncClient, keys: Keys, tenant: Tenant
) -> None:
    connector_id, key = await paired(app, owner_client)
    other_key = (await paired(app, owner_client, "other"))[1]
    user_id = await keys.member(tenant, f"ada@{tenant.slug}.example.org", "owner")
    async with calling(app, await keys.user(tenant, user_id=user_id)) as ada:
        asked = await ada.post(
            "/api/v1/directives",
            json={"type": "email.send", "params": MAIL, "target": connector_id},
            headers={"Idempotency-Key": "mail-1"},
        )
        assert asked.status_code == 202, asked.text
        async with calling(app, key) as connector:
            assert (await connector.get("/api/edge/v1/directives")).json() == []
            (waiting,) = (await ada.get("/api/v1/approvals")).json()["items"]
            answer = await ada.post(
                f"/api/v1/approvals/{waiting['id']}/approve",
                json={"hash": waiting["action_sha256"]},
            )
            assert answer.status_code == 200, answer.text
            async with calling(app, other_key) as other:
                assert (await other.get("/api/edge/v1/directives")).json() == []
            (leased,) = (await connector.get("/api/edge/v1/directives")).json()
            assert leased["type"] == "email.send"
            assert leased["params"]["to"] == MAIL["to"]


async def installed(database: Database, tenant: Tenant, state: str = "installed") -> UUID:
    """An installation of the package, as the installing directive leaves it."""
    async with database.tenant(tenant.schema) as session:
        found = Installation(
            id=uuid4(), package=PACKAGE, version="1.0.0", state=state, config_checksum="0" * 64
        )
        session.add(found)
        return found.id


async def _installation_state(database: Database, tenant: Tenant, installation_id: UUID) -> str:
    async with database.tenant(tenant.schema) as session:
        return (await session.get_one(Installation, installation_id)).state


async def _asked(database: Database, tenant: Tenant, target: str, key: str = "test") -> UUID:
    async with database.tenant(tenant.schema) as session:
        directive, _ = await directives.request_directive(
            session,
            tenant,
            "email.send",
            MAIL,
            idempotency_key=f"{key}:{target}",
            actor=Actor("user:somebody", "member"),
            target=target,
        )
        assert len(await approvals.list_approvals(session, directive_id=directive.id)) == 1
        return directive.id


async def _live_keys(database: Database, tenant: Tenant, connector_id: str) -> int:
    async with database.platform() as session:
        found = await session.scalar(
            select(func.count()).where(
                ApiKey.organization_id == tenant.id,
                ApiKey.connector_id == connector_id,
                ApiKey.revoked_at.is_(None),
            )
        )
        return found or 0


async def _refused_within(app: FastAPI, key: str, seconds: float) -> bool:
    """Whether a key is refused once so much time has passed since now."""
    await asyncio.sleep(seconds)
    async with calling(app) as client:
        answer = await client.get("/api/v1/me", headers=bearer(key))
    return answer.status_code == 401


async def test_a_code_that_begins_right_costs_the_same_work_as_one_that_does_not(
    app: FastAPI, owner_client: httpx.AsyncClient
) -> None:
    """T29: nobody learns by the clock how a code begins; the same statements run, and as many write."""
    code = (await made(owner_client))["pairing"]["code"]
    engine = app.state.platform.database.engine.sync_engine
    ran: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "pairing" in statement or "sign_in" in statement or "connectors" in statement:
            ran.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    found = []
    try:
        for typed in (f"{code[:5]}AAAA-BBBB", "AAAA-AAAA-BBBB", "no code at all"):
            ran.clear()
            assert problem_id(await tried(app, typed), 401) == "unauthenticated"
            found.append(list(ran))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(found[0]) >= 4
    assert found[0] == found[1] == found[2]
