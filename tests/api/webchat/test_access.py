"""Who may do what: origins, tokens, tenants; each refusal has its own code and can be read."""

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.state import AppState
from sqlalchemy import text, update

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.keys import make_token
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.registration import rotate
from fleetprompt.webchat.signing import encode
from tests.api.support import problem_id
from tests.api.webchat.widget import API, ORIGIN, Widget, later, make_site

NewTenant = Callable[[], Awaitable[Tenant]]


def platform_of(app: FastAPI) -> AppState:
    return cast(AppState, app.state.platform)


def forget_sites(app: FastAPI) -> None:
    """Have the next request look at the site again, as half a second later it would."""
    platform_of(app).chat_sites._found.clear()


async def test_a_page_gets_the_site_and_a_token_and_leaves_no_trace(
    client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    site = await make_site(
        database,
        settings,
        tenant,
        greeting="Hello!",
        texts={"de": {"greeting": "Moin!"}},
        consent={"version": "2026-01", "text": "We store.", "link": "https://shop.example/p"},
        theme={"accent": "#ffee00"},
    )
    widget = Widget(client, site.site_key)
    found = await widget.bootstrap(language="de")
    assert found["expires_in"] == 900
    assert found["conversation"] is None
    assert found["site"] == {
        "title": "Nordwind Shop",
        "greeting": "Moin!",
        "hours": None,
        "theme": {"accent": "#ffee00", "on_accent": "#000000", "scheme": "auto", "side": "end"},
        "consent": {"version": "2026-01", "text": "We store.", "link": "https://shop.example/p"},
        "prechat": {"name": "off", "email": "off"},
        "ask_contact": True,
        "rating": True,
    }
    assert (await widget.bootstrap(language="xx"))["site"]["greeting"] == "Hello!"
    async with database.tenant(tenant.schema) as session:
        for table in ("website_chat_conversations", "website_chat_messages", "signals"):
            assert await session.scalar(text(f"SELECT count(*) FROM {table}")) == 0


async def test_t35_a_page_elsewhere_is_told_why_it_may_not(widget: Widget) -> None:
    for origin in ("https://evil.example", "null", "http://shop.example"):
        widget.origin = origin
        answer = await widget.post("bootstrap")
        assert problem_id(answer, 403) == "origin-not-allowed"
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
    headers = {"Webchat-Site": widget.site_key}
    answer = await widget.client.post(f"{API}/bootstrap", json={}, headers=headers)
    assert problem_id(answer, 403) == "origin-not-allowed"


async def test_t36_an_empty_list_of_origins_refuses_all(
    client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    site = await make_site(database, settings, tenant, origins=())
    answer = await Widget(client, site.site_key).post("bootstrap")
    assert problem_id(answer, 403) == "origin-not-allowed"


async def test_preflights_are_answered_without_a_site(client: httpx.AsyncClient) -> None:
    for path in ("bootstrap", "sessions", "messages", "events", "erase"):
        answer = await client.options(
            f"{API}/{path}",
            headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"},
        )
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-max-age"] == "7200"
        allowed = answer.headers["access-control-allow-headers"]
        for name in ("Authorization", "Content-Type", "Last-Event-ID", "Webchat-Site"):
            assert name in allowed


async def test_every_request_but_bootstrap_needs_a_token(widget: Widget) -> None:
    paths = ("sessions", "messages", "typing", "contact", "end", "rating", "erase")
    for token, problem in (("", "token-required"), ("abc.def", "token-invalid")):
        widget.token = token
        answers = [await widget.post(path, {}) for path in paths]
        answers += [await widget.get(path) for path in ("messages", "events")]
        for answer in answers:
            assert problem_id(answer, 401) == problem
            assert answer.headers["access-control-expose-headers"] == "Retry-After, X-Request-Id"


async def test_t12_a_token_counts_in_the_header_alone(widget: Widget) -> None:
    await widget.bootstrap()
    token, widget.token = widget.token, ""
    answer = await widget.get("messages", conversation_id=str(uuid4()), token=token)
    assert problem_id(answer, 401) == "token-required"


async def test_an_unknown_site_is_not_found_whatever_is_wrong_with_its_key(widget: Widget) -> None:
    for key in (make_token("pub"), "fp_pub_x", "", make_token("user"), "x" * 5000):
        widget.site_key = key
        assert problem_id(await widget.post("bootstrap"), 404) == "not-found"


async def test_t38_a_token_of_another_site_or_origin_is_refused(
    client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    both = (ORIGIN, "https://other.example")
    first = await make_site(database, settings, tenant, origins=both)
    second = await make_site(database, settings, tenant, origins=both)
    widget = Widget(client, first.site_key)
    await widget.begin()
    widget.site_key = second.site_key
    assert problem_id(await widget.post("sessions"), 401) == "token-site-mismatch"
    widget.site_key, widget.origin = first.site_key, both[1]
    assert problem_id(await widget.post("sessions"), 401) == "token-origin-mismatch"
    widget.origin = ORIGIN
    assert (await widget.post("sessions")).status_code == 200


async def test_t38_a_token_ends_after_15_minutes_and_the_visitor_goes_on(
    app: FastAPI, widget: Widget
) -> None:
    began = system_clock()
    platform_of(app).clock = lambda: began
    await widget.begin()
    platform_of(app).clock = lambda: began + timedelta(seconds=899)
    assert (await widget.post("sessions")).status_code == 200
    platform_of(app).clock = lambda: began + timedelta(seconds=901)
    assert problem_id(await widget.post("sessions"), 401) == "token-expired"
    found = await widget.bootstrap()
    assert found["conversation"]["id"] == widget.conversation
    assert (await widget.say("still me")).status_code == 201


async def test_t38_rotation_lets_tokens_live_out_their_time_and_keeps_visitors(
    app: FastAPI, widget: Widget, site: ChatSite, database: Database, settings: Settings,
    tenant: Tenant,
) -> None:  # fmt: skip
    await widget.begin()
    old = widget.token
    data_key = await Vault(database, load_master_key(settings)).current_key(tenant)
    async with database.tenant(tenant.schema) as session:
        now = system_clock() + timedelta(seconds=1)
        await rotate(session, tenant, data_key, site.id, "token", now, secret_id=new_id())
    forget_sites(app)
    assert (await widget.post("sessions")).status_code == 200
    found = await widget.bootstrap()
    assert found["conversation"]["id"] == widget.conversation
    assert widget.token != old
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE website_chat_site_secrets SET retired_at = retired_at - interval '16 min'"
                " WHERE retired_at IS NOT NULL"
            )
        )
    forget_sites(app)
    assert (await widget.post("sessions")).status_code == 200
    widget.token = old
    assert problem_id(await widget.post("sessions"), 401) == "token-key-unknown"


async def test_t38_a_site_that_is_switched_off_answers_nobody(
    app: FastAPI, widget: Widget, site: ChatSite, database: Database, tenant: Tenant
) -> None:
    await widget.begin()
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            update(ChatSite).where(ChatSite.id == site.id).values(status="disabled")
        )
    forget_sites(app)
    for answer in (await widget.post("bootstrap"), await widget.say("hello")):
        assert problem_id(answer, 403) == "site-disabled"


async def test_t37_no_field_of_a_request_reaches_another_tenant(
    widget: Widget,
    site: ChatSite,
    database: Database,
    settings: Settings,
    tenant: Tenant,
    new_tenant: NewTenant,
) -> None:
    other = await new_tenant()
    victim = await make_site(database, settings, other)
    lies: dict[str, Any] = {
        "tenant": other.slug,
        "tenant_id": str(other.id),
        "schema": other.schema,
        "site": str(victim.id),
        "site_id": str(victim.id),
        "site_key": victim.site_key,
        "organization_id": str(other.id),
        "visitor_id": str(uuid4()),
    }
    widget.headers = {"X-Tenant": other.slug, "X-Site-Id": str(victim.id)}
    await widget.bootstrap(**lies)
    await widget.begin(**lies)
    answer = await widget.post(
        f"messages?tenant={other.slug}&site_id={victim.id}",
        {
            **lies,
            "conversation_id": widget.conversation,
            "client_message_id": str(uuid4()),
            "text": "hello",
        },
    )
    assert answer.status_code == 201
    for one, expected in ((tenant, 1), (other, 0)):
        async with database.tenant(one.schema) as session:
            for table in ("website_chat_conversations", "website_chat_messages"):
                found = await session.scalar(text(f"SELECT count(*) FROM {table}"))
                assert found == expected, (one.slug, table)


async def test_t48_no_token_and_no_secret_is_in_a_log_or_in_any_table(
    app: FastAPI,
    widget: Widget,
    site: ChatSite,
    database: Database,
    tenant: Tenant,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    await widget.begin(contact={"email": "noor@example.org"}, identity=None)
    await widget.say("hello")
    await widget.get("messages", conversation_id=widget.conversation)
    kept = [widget.token, widget.visitor or ""]
    widget.token = f"{widget.token}x"
    for path in ("sessions", "contact", "end", "erase"):
        await widget.post(path, {"conversation_id": widget.conversation, "identity": kept[0]})
    found = await platform_of(app).chat_sites.find(site.site_key)
    secrets = [*found.token_secrets.values()]
    kept += [encode(one) for one in (found.visitor_secret, found.identity_secret)]
    kept += [encode(one.content) for one in secrets]
    async with database.tenant(tenant.schema) as session:
        tables = await session.scalars(
            text(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            )
        )
        stored = [
            str(row)
            for table in tables.all()
            for row in await session.scalars(text(f"SELECT t::text FROM {table} t"))
        ]
    assert len(caplog.records) > 5
    logged = str([record.__dict__ for record in caplog.records])
    assert "webchat.message.received" in "\n".join(stored)
    for place in ("\n".join(stored), caplog.text, logged, repr(found)):
        for secret in kept:
            assert secret not in place


async def test_addresses_and_browsers_are_kept_as_hashes_whose_salt_goes(
    app: FastAPI, new_widget: Callable[[], Widget], database: Database, tenant: Tenant
) -> None:
    widget = new_widget()
    widget.headers = {"User-Agent": "Mozilla/5.0 (Test)"}
    await widget.begin()
    async with database.tenant(tenant.schema) as session:
        row = (
            await session.execute(
                text("SELECT address_hash, agent_hash, c::text AS all FROM"
                     " website_chat_conversations c")
            )
        ).one()  # fmt: skip
        assert len(row.address_hash) == len(row.agent_hash) == 22
        assert "127.0.0" not in row.all
        assert "Mozilla" not in row.all
        first = await session.scalar(text("SELECT min(day) FROM website_chat_salts"))
    platform_of(app).clock = later(2 * 86_400)
    await new_widget().begin()
    async with database.tenant(tenant.schema) as session:
        days = list(await session.scalars(text("SELECT day FROM website_chat_salts")))
    assert len(days) == 1
    assert first not in days


@pytest.mark.parametrize("bad", ["v1.1.x.y", "x", "v1." + "9" * 200])
async def test_a_visitors_secret_that_was_not_made_here_is_answered_with_a_new_one(
    widget: Widget, bad: str
) -> None:
    found = (await widget.post("bootstrap", {"visitor": bad})).json()
    assert found["visitor"] not in (bad, "")
    assert found["conversation"] is None


async def test_a_visitor_who_comes_back_after_90_days_is_a_new_one_and_can_write(
    app: FastAPI, widget: Widget
) -> None:
    await widget.begin()
    old = widget.visitor
    platform_of(app).clock = later(89 * 86_400)
    assert (await widget.bootstrap())["visitor"] == old
    platform_of(app).clock = later(90 * 86_400 + 60)
    found = await widget.bootstrap()
    assert found["visitor"] != old
    assert found["conversation"] is None
    await widget.begin()
    assert (await widget.say("hello again")).status_code == 201
