"""The chat's page without script, as a browser without script uses it."""

import re
from dataclasses import dataclass
from html import unescape
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat import registration
from fleetprompt.webchat.models import ChatSite
from tests.api.webchat.widget import make_site

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
CONSENT = {
    "version": "2026-01",
    "text": "We store what you write.",
    "link": "https://shop.example/p",
}


@dataclass
class Visitor:
    """Sends the form of the page as it is; fields may be changed."""

    client: httpx.AsyncClient
    site: ChatSite
    page: str = ""

    @property
    def address(self) -> str:
        return f"/chat/{self.site.site_key}"

    async def come(self, **headers: str) -> httpx.Response:
        answer = await self.client.get(self.address, headers=headers)
        self.page = answer.text
        return answer

    def fields(self) -> dict[str, str]:
        found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', self.page)
        return {name: unescape(value) for name, value in found}

    async def send(self, **fields: str) -> httpx.Response:
        answer = await self.client.post(
            self.address,
            data={"text": "", "do": "send", **self.fields(), **fields},
            headers=SAME_ORIGIN,
        )
        self.page = answer.text
        return answer

    def said(self) -> list[str]:
        """The thread, without the greeting."""
        return [
            unescape(one)
            for one in re.findall(r"</span>\n<p dir=\"auto\">(.*?)</p>", self.page, re.S)
        ]


async def _stored(database: Database, tenant: Tenant) -> list[tuple[int, str | None]]:
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(
            text("SELECT seq, content FROM website_chat_messages ORDER BY conversation_id, seq")
        )
        return [(row.seq, row.content) for row in rows]


async def _count(database: Database, tenant: Tenant, table: str) -> int:
    async with database.tenant(tenant.schema) as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def test_a_conversation_is_held_without_script_and_a_form_sent_twice_counts_once(
    client: httpx.AsyncClient, site: ChatSite, database: Database, tenant: Tenant
) -> None:
    visitor = Visitor(client, site)
    assert (await visitor.come()).status_code == 200
    assert "<script" not in visitor.page
    assert await _count(database, tenant, "website_chat_conversations") == 0
    first = visitor.fields()
    await visitor.send(text="Do you ship\r\nto <b>Iceland</b>?")
    assert visitor.said() == ["Do you ship\nto <b>Iceland</b>?"]
    assert "<b>Iceland" not in visitor.page
    # The browser's reload sends the first form again, later one by one too.
    page = visitor.page
    await visitor.send(**first, text="Do you ship\r\nto <b>Iceland</b>?")
    visitor.page = page
    await visitor.send(text="And to Norway?")
    await visitor.send(do="end")
    assert "This chat has ended" in visitor.page
    await visitor.send(**first, text="Do you ship\r\nto <b>Iceland</b>?")
    assert await _stored(database, tenant) == [
        (1, "Do you ship\nto <b>Iceland</b>?"),
        (2, "And to Norway?"),
    ]
    async with database.tenant(tenant.schema) as session:
        told = await session.scalars(text("SELECT type FROM signals ORDER BY id"))
        assert [one for one in told if one.startswith("webchat.")] == [
            "webchat.session.started",
            *["webchat.message.received"] * 2,
            "webchat.session.ended",
        ]


async def test_the_teams_reply_is_seen_when_the_visitor_looks_and_what_is_typed_stays(
    client: httpx.AsyncClient, site: ChatSite, database: Database, tenant: Tenant
) -> None:
    visitor = Visitor(client, site)
    await visitor.come()
    await visitor.send(text="Hello")
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO website_chat_messages (id, conversation_id, seq, role, author, content,"
                " signal_id, inserted_at) SELECT gen_random_uuid(), id, 2, 'agent', 'Anna', 'Hi!',"
                " gen_random_uuid(), now() FROM website_chat_conversations"
            )
        )
        await session.execute(text("UPDATE website_chat_conversations SET last_seq = 2"))
    await visitor.send(do="look", text="half a sen")
    assert visitor.said() == ["Hello", "Hi!"]
    assert "Anna, <time" in visitor.page
    assert ">half a sen</textarea>" in visitor.page
    assert await _count(database, tenant, "website_chat_messages") == 2


async def test_consent_and_what_the_site_asks_for_come_first_and_the_text_stays(
    client: httpx.AsyncClient, settings: Settings, database: Database, tenant: Tenant
) -> None:
    site = await make_site(
        database,
        settings,
        tenant,
        consent=CONSENT,
        prechat={"name": "off", "email": "required"},
        hours={"zone": "Europe/Berlin", "week": {}, "away": "We answer by e-mail."},
    )
    visitor = Visitor(client, site)
    await visitor.come()
    assert "We answer by e-mail." in visitor.page
    assert 'href="https://shop.example/p"' in visitor.page
    answer = await visitor.send(text="Hello")
    assert (answer.status_code, "E-mail" in visitor.page) == (422, True)
    answer = await visitor.send(text="Hello", email="noor@example.org")
    assert answer.status_code == 403
    assert "Please agree first" in visitor.page
    assert ">Hello</textarea>" in visitor.page
    assert await _count(database, tenant, "website_chat_conversations") == 0
    answer = await visitor.send(text="Hello", email="noor@example.org", consent="2025-01")
    assert (answer.status_code, "terms have changed" in visitor.page) == (409, True)
    await visitor.send(text="Hello", email="noor@example.org", consent="2026-01")
    assert visitor.said() == ["Hello"]
    assert 'type="checkbox"' not in visitor.page
    await visitor.send(text="And")
    assert visitor.said() == ["Hello", "And"]
    async with database.tenant(tenant.schema) as session:
        kept = await session.execute(
            text("SELECT visitor_email, consent_version FROM website_chat_conversations")
        )
        assert kept.one() == ("noor@example.org", "2026-01")


async def test_the_same_limits_hold_and_nothing_that_was_typed_is_lost(
    client: httpx.AsyncClient, settings: Settings, database: Database, tenant: Tenant
) -> None:
    site = await make_site(
        database, settings, tenant, limits={"messages_per_conversation_minute": 1}
    )
    visitor = Visitor(client, site)
    await visitor.come()
    await visitor.send(text="one")
    answer = await visitor.send(text="two")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert ">two</textarea>" in visitor.page
    assert visitor.said() == ["one"]


async def test_without_a_captcha_the_page_ends_where_work_would_be_asked_and_keeps_what_was_typed(
    client: httpx.AsyncClient, settings: Settings, database: Database, tenant: Tenant
) -> None:
    limits = {"free_sessions_per_address_hour": 1}
    site = await make_site(database, settings, tenant, limits=limits)
    first, second = Visitor(client, site), Visitor(client, site)
    await first.come()
    assert (await first.send(text="hello")).status_code == 200
    await second.come()
    refused = await second.send(text="half a day of typing")
    assert refused.status_code == 403
    assert "Many messages come from your network." in refused.text
    assert ">half a day of typing</textarea>" in refused.text
    assert "<script" not in refused.text
    # Who has a conversation goes on.
    assert (await first.send(text="and more")).status_code == 200
    assert await _stored(database, tenant) == [(1, "hello"), (2, "and more")]


async def test_the_visitor_may_be_forgotten(
    client: httpx.AsyncClient, site: ChatSite, database: Database, tenant: Tenant
) -> None:
    visitor = Visitor(client, site)
    await visitor.come()
    await visitor.send(text="my number is 4711")
    before = visitor.fields()["visitor"]
    await visitor.send(do="erase")
    assert "Your data has been erased." in visitor.page
    assert "4711" not in visitor.page
    assert visitor.fields()["visitor"] != before
    assert await _stored(database, tenant) == [(1, None)]
    # The page from before, in another tab: its visitor is no more, its text is not lost.
    answer = await visitor.send(visitor=before, text="still here")
    assert answer.status_code == 403
    assert ">still here</textarea>" in visitor.page
    await visitor.send(text="still here")
    assert visitor.said() == ["still here"]


async def test_nobody_becomes_another_visitor_by_making_up_a_secret(
    client: httpx.AsyncClient, site: ChatSite, database: Database, tenant: Tenant
) -> None:
    visitor = Visitor(client, site)
    for given in ("", "v1.1.x.y", "v1.1790000000.AAAA.AAAA", "x" * 5000):
        await visitor.come()
        await visitor.send(visitor=given, text="hello")
        assert visitor.said() == []
        assert visitor.fields()["visitor"] != given
    assert await _count(database, tenant, "website_chat_messages") == 0


async def test_another_sites_form_and_what_no_form_would_send_are_refused(
    client: httpx.AsyncClient, site: ChatSite, database: Database, tenant: Tenant
) -> None:
    visitor = Visitor(client, site)
    await visitor.come()
    fields = {"text": "x", "do": "send", **visitor.fields()}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {}):
        answer = await client.post(visitor.address, data=fields, headers=headers)
        assert answer.status_code == 403
    for lacking in ("visitor", "client_message_id", "text"):
        sent: dict[str, Any] = {name: value for name, value in fields.items() if name != lacking}
        answer = await client.post(visitor.address, data=sent, headers=SAME_ORIGIN)
        assert answer.status_code == 400
        assert answer.headers["content-type"].startswith("text/html")
    assert await _count(database, tenant, "website_chat_messages") == 0


async def test_the_page_speaks_the_visitors_language_under_a_policy_that_allows_only_its_style(
    client: httpx.AsyncClient, site: ChatSite
) -> None:
    visitor = Visitor(client, site)
    for wanted, language, direction in (
        *(("ar-EG,en;q=0.5", "ar", "rtl"), ("tlh, de;q=0.1", "de", "ltr")),
        *(("en;q=0.2, ja", "ja", "ltr"), ("tlh", "en", "ltr"), ("de;q=0", "en", "ltr")),
    ):
        answer = await visitor.come(**{"Accept-Language": wanted})
        assert f'<html lang="{language}" dir="{direction}">' in visitor.page
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert "script" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert "set-cookie" not in answer.headers


async def test_a_site_that_is_not_there_or_off_or_open_to_nobody_has_no_chat(
    client: httpx.AsyncClient, settings: Settings, database: Database, tenant: Tenant
) -> None:
    closed = await make_site(database, settings, tenant, origins=())
    off = await make_site(database, settings, tenant)
    async with database.tenant(tenant.schema) as session:
        (await registration.get_site(session, UUID(str(off.id)))).status = "disabled"
    for key, status in ((closed.site_key, 403), (off.site_key, 403), ("fp_pub_nothing", 404)):
        for answer in (
            await client.get(f"/chat/{key}", headers={"Accept-Language": "de"}),
            await client.post(f"/chat/{key}", data={"text": "x"}, headers=SAME_ORIGIN),
        ):
            assert answer.status_code == status
            assert "<form" not in answer.text
    assert (
        "Chat nicht verfügbar."
        in (await client.get("/chat/fp_pub_x", headers={"Accept-Language": "de"})).text
    )
