"""Sessions: consent, contact, identity, their end and rating, and being forgotten."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.signing import encode
from tests.api.support import problem_id
from tests.api.webchat.test_access import platform_of
from tests.api.webchat.test_messages import signals_of
from tests.api.webchat.widget import Widget, later, make_site

CONSENT = {"version": "2", "text": "We store what you write.", "link": None}


async def test_of_a_visitor_one_conversation_is_open_whoever_asks_at_once(
    widget: Widget, database: Database, tenant: Tenant
) -> None:
    await widget.bootstrap()
    answers = await asyncio.gather(*(widget.post("sessions") for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["conversation"]["id"] for answer in answers}) == 1
    assert len(await signals_of(database, tenant, "webchat.session.started")) == 1


async def test_t20_nothing_is_stored_without_consent_to_the_present_text(
    client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    site = await make_site(
        database, settings, tenant, consent=CONSENT, texts={"de": {"consent": "Wir speichern."}}
    )
    widget = Widget(client, site.site_key)
    await widget.bootstrap()
    assert problem_id(await widget.post("sessions"), 403) == "consent-required"
    stale = await widget.post("sessions", {"consent": "1", "language": "de"})
    assert problem_id(stale, 409) == "consent-stale"
    assert stale.json()["consent"] == {**CONSENT, "text": "Wir speichern."}
    async with database.tenant(tenant.schema) as session:
        assert await session.scalar(text("SELECT count(*) FROM website_chat_conversations")) == 0
    await widget.begin(consent="2")
    assert (await widget.say("hello")).status_code == 201
    (started,) = await signals_of(database, tenant, "webchat.session.started")
    assert started["consent_version"] == "2"


async def test_t20_a_new_text_is_asked_for_before_the_next_message(
    app: FastAPI,
    client: httpx.AsyncClient,
    database: Database,
    settings: Settings,
    tenant: Tenant,
) -> None:
    site = await make_site(database, settings, tenant, consent=CONSENT)
    widget = Widget(client, site.site_key)
    await widget.begin(consent="2")
    await widget.say("before")
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE website_chat_sites SET settings ="
                " jsonb_set(settings, '{consent,version}', '\"3\"')"
            )
        )
    platform_of(app).chat_sites._found.clear()
    assert problem_id(await widget.say("after"), 409) == "consent-stale"
    again = await widget.post("sessions", {"consent": "3"})
    assert again.status_code == 200
    assert again.json()["conversation"]["id"] == widget.conversation
    assert (await widget.say("after")).status_code == 201


async def test_contact_is_told_of_once_for_the_same_content(
    widget: Widget, database: Database, tenant: Tenant
) -> None:
    begun = await widget.begin(contact={"name": " Noor\u202e ", "email": "noor@example.org"})
    assert begun["contact"] == {"name": "Noor", "email": "noor@example.org"}
    assert begun["conversation"]["contact"] is True
    of = {"conversation_id": widget.conversation}
    for _ in range(2):
        answer = await widget.post("contact", {**of, "email": "noor@example.org"})
        assert answer.json() == {"contact": {"name": "Noor", "email": "noor@example.org"}}
    await widget.post("contact", {**of, "name": "Noor B."})
    told = await signals_of(database, tenant, "webchat.contact.captured")
    assert [(one["name"], one["email"]) for one in told] == [
        ("Noor", "noor@example.org"),
        ("Noor B.", "noor@example.org"),
    ]
    assert problem_id(await widget.post("contact", of), 422) == "invalid"
    for bad in ("nobody", "a@b@c", "a b@c.de", "x" * 300 + "@c.de", "a@c.de\n\rBcc: d@e.fg"):
        assert problem_id(await widget.post("contact", {**of, "email": bad}), 422) == "invalid"


async def test_a_tenant_may_keep_what_visitors_say_out_of_signals(
    client: httpx.AsyncClient, database: Database, settings: Settings, tenant: Tenant
) -> None:
    site = await make_site(database, settings, tenant, content_in_signals=False)
    widget = Widget(client, site.site_key)
    await widget.begin(contact={"name": "Noor", "email": "noor@example.org"})
    await widget.say("private words")
    async with database.tenant(tenant.schema) as session:
        told = await session.scalar(text("SELECT string_agg(data::text, ' ') FROM signals"))
    assert "Noor" not in told
    assert "noor@" not in told
    assert "private words" not in told


async def test_t57_who_the_site_vouches_for_is_not_overwritten(
    app: FastAPI, widget: Widget, site: ChatSite
) -> None:
    found = await platform_of(app).chat_sites.find(site.site_key)

    def signed(**changed: Any) -> str:
        claims = {"sub": "c7", "name": "Noor", "email": "noor@example.org", **changed}
        head = {"alg": "HS256"}
        body = ".".join(encode(json.dumps(part).encode()) for part in (head, claims))
        mac = hmac.digest(found.identity_secret, body.encode(), hashlib.sha256)
        return f"{body}.{encode(mac)}"

    now = int(system_clock().timestamp())
    await widget.bootstrap()
    for token, problem in (
        (signed(exp=now - 1), "identity-expired"),
        (signed(exp=now + 60, sub=""), "identity-invalid"),
        (signed(exp=now + 60)[:-3], "identity-invalid"),
    ):
        assert problem_id(await widget.post("sessions", {"identity": token}), 403) == problem
    begun = await widget.begin(identity=signed(exp=now + 60))
    assert begun["contact"] == {"name": "Noor", "email": "noor@example.org"}
    of = {"conversation_id": widget.conversation}
    answer = await widget.post("contact", {**of, "name": "Somebody", "email": "else@example.org"})
    assert answer.json()["contact"] == {"name": "Noor", "email": "noor@example.org"}
    # The site may say it anew, and of somebody else it says nothing about the one before.
    married = await widget.begin(identity=signed(exp=now + 60, name="Noor B."))
    assert married["contact"] == {"name": "Noor B.", "email": "noor@example.org"}
    another = await widget.begin(identity=signed(exp=now + 60, sub="c8", name=None, email=None))
    assert another["contact"] == {"name": None, "email": None}


async def test_an_end_is_told_of_once_and_rated_after_it(
    widget: Widget, database: Database, tenant: Tenant
) -> None:
    await widget.begin()
    of = {"conversation_id": widget.conversation}
    assert problem_id(await widget.post("rating", {**of, "rating": 5}), 409) == "conflict"
    for _ in range(2):
        answer = await widget.post("end", of)
        assert answer.json()["conversation"]["status"] == "closed"
    (ended,) = await signals_of(database, tenant, "webchat.session.ended")
    assert ended["by"] == "visitor"
    assert (await widget.bootstrap())["conversation"]["rated"] is False
    for rating in (2, 5, 5):
        assert (await widget.post("rating", {**of, "rating": rating})).status_code == 204
    assert (await widget.bootstrap())["conversation"]["rated"] is True
    assert problem_id(await widget.post("rating", {**of, "rating": 6}), 422) == "invalid"
    told = await signals_of(database, tenant, "webchat.session.rated")
    assert [one["rating"] for one in told] == [2, 5]


async def test_a_closed_conversation_is_shown_for_a_day(app: FastAPI, widget: Widget) -> None:
    await widget.begin()
    await widget.post("end", {"conversation_id": widget.conversation})
    found = await widget.bootstrap()
    assert found["conversation"]["status"] == "closed"
    platform_of(app).clock = later(86_500)
    assert (await widget.bootstrap())["conversation"] is None


async def test_t56_who_is_forgotten_leaves_a_tombstone_and_no_word(
    new_widget: Callable[[], Widget], database: Database, tenant: Tenant
) -> None:
    widget, other = new_widget(), new_widget()
    for one in (widget, other):
        await one.begin(
            contact={"name": "Zebulon", "email": "zeb@example.org"},
            page_url="https://shop.example/zebra",
        )
        await one.say("My zeppelin is late")
    async with database.tenant(tenant.schema) as session:
        await session.execute(text("DELETE FROM fleetprompt.stale_partitions"))
    for _ in range(2):
        assert (await widget.post("erase")).status_code == 204
    async with database.tenant(tenant.schema) as session:
        # The lake's copies go as well: the signals' day is to be written again.
        stale = await session.scalars(text("SELECT DISTINCT day FROM fleetprompt.stale_partitions"))
        assert system_clock().date() in list(stale)
    async with database.tenant(tenant.schema) as session:
        stored = [
            str(row)
            for table in ("website_chat_conversations", "website_chat_messages", "signals")
            for row in await session.scalars(text(f"SELECT t::text FROM {table} t"))
            if widget.conversation in str(row)
        ]
        assert len(stored) >= 5
        assert not [row for row in stored if "zeb" in row.lower() or "zeppelin" in row]
    assert await other.texts() == ["My zeppelin is late"]
    (tombstone,) = await signals_of(database, tenant, "webchat.conversation.erased")
    assert (tombstone["messages"], tombstone["by"]) == (1, "visitor")
    received = await signals_of(database, tenant, "webchat.message.received")
    (erased,) = [one for one in received if one["conversation_id"] == widget.conversation]
    assert erased["erased"] is True
    assert erased["seq"] == 1
    answer = await widget.get("messages", conversation_id=widget.conversation)
    assert problem_id(answer, 404) == "not-found"
    # A page that is still open gets a new token, and with it a new visitor.
    assert problem_id(await widget.post("sessions"), 401) == "token-invalid"
    before = widget.visitor
    found = await widget.bootstrap()
    assert found["visitor"] != before
    assert found["conversation"] is None
    assert (await widget.post("sessions")).status_code == 201


@pytest.mark.parametrize("field", ["name", "email"])
async def test_t45_markup_in_contact_is_text_or_refused(widget: Widget, field: str) -> None:
    payload = "<img src=x onerror=alert(1)>"
    await widget.bootstrap()
    answer = await widget.post("sessions", {"contact": {field: payload}})
    if field == "name":
        assert answer.json()["contact"]["name"] == payload
    else:
        assert problem_id(answer, 422) == "invalid"
