"""The inbox: what it lists, what a conversation's page tells, and what its forms do."""

import asyncio
import json
import re
from datetime import timedelta
from html import unescape
from uuid import UUID, uuid4

from fastapi import FastAPI
from fleetprompt_api.state import AppState
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatConversation
from tests.api.console.support import (
    add_words,
    at_console,
    browsing,
    converse,
    hidden_field,
    links_of,
    person,
)
from tests.api.console.test_pages import HOSTILE
from tests.api.support import Keys
from tests.packages.chat_installed import Chat
from tests.packages.installed import Platform

INBOX = "/support/webchat/conversations"


def _order(page: str) -> list[str]:
    """The conversations of a list, from above."""
    return re.findall(rf'class="row-title" href="{INBOX}/([^"]+)"', page)


async def _change(
    database: Database, tenant: Tenant, conversation_id: UUID, **values: object
) -> None:
    async with database.tenant(tenant.schema) as session:
        found = await session.get_one(ChatConversation, conversation_id)
        for name, value in values.items():
            setattr(found, name, value)


async def test_the_list_shows_who_waits_longest_first_by_site_status_and_assignee(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    answered = await converse(database, tenant, "thanks", name="Answered")
    first = await converse(database, tenant, "one", "two", name="Noor")
    later = await converse(database, tenant, "hello", name="Ben")
    over = await converse(database, tenant, "bye")
    platform: AppState = app.state.platform
    now = platform.clock()
    ada = await person(keys, tenant, "ada", "member")
    await _change(database, tenant, answered, waiting_since=None, read_seq=1)
    await _change(database, tenant, first, waiting_since=now - timedelta(minutes=50))
    await _change(database, tenant, later, assignee=f"user:{ada}")
    await _change(database, tenant, over, status="closed", waiting_since=None, closed_at=now)
    async with at_console(app, keys, tenant, ada) as client:
        page = (await client.get(INBOX)).text
        assert _order(page) == [str(one) for one in (first, later, answered)]
        assert "<title>(2) Inbox" in page
        assert re.findall(r"(\d) unread", page) == ["2", "1"]
        assert "50\N{NO-BREAK SPACE}min" in page
        assert f"ada@{tenant.slug}" in page
        for query, wanted in (
            ({"status": "closed"}, [over]),
            ({"status": "all", "behind": str(first)}, [later, over, answered]),
            ({"mine": "true"}, [later]),
            ({"site": str(uuid4())}, [first, later, answered]),
        ):
            found = (await client.get(INBOX, params=query)).text
            assert _order(found) == [str(one) for one in wanted], query
        assert (await client.get("/support/webchat")).headers["location"] == INBOX


async def test_a_conversation_tells_what_was_said_and_what_happened_in_one_order(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    page_url = "https://shop.example/cart"
    conversation_id = await converse(
        database, tenant, "Do you ship?", "Hello?", name="Noor", page_url=page_url
    )
    ada = await person(keys, tenant, "ada", "admin")
    async with at_console(app, keys, tenant, ada) as client:
        address = f"{INBOX}/{conversation_id}"
        answer = await client.post(f"{address}/assign", data={"user_id": str(ada)})
        assert (answer.status_code, answer.headers["location"]) == (303, address)
        page = (await client.get(address)).text
        rows = re.findall(r'<li id="(\w+)-[^"]+" class="(\w+)', page)
        assert [kind for _, kind in rows] == ["event", "message", "message", "event"]
        assert f"Began on {page_url}" in page
        assert re.search(r"Given to ada@[^<]+ by ada@", page)
        signals = [one for one in links_of(page) if one.startswith("/console/signals/")]
        assert len(signals) == 2
        for one in (*signals, f"/console/timeline/webchat:{conversation_id}"):
            assert (await client.get(one)).status_code == 200
        read = {"seq": hidden_field(page, "seq")}
        assert (await client.post(f"{address}/read", data=read)).status_code == 303
        assert "(2)" not in (await client.get(address)).text


async def test_a_reply_is_sent_once_however_often_its_form_is_and_the_page_says_what_becomes_of_it(
    app: FastAPI, keys: Keys, database: Database, settings: Settings, tenant: Tenant
) -> None:
    conversation_id = await converse(database, tenant, "Do you ship?")
    address = f"{INBOX}/{conversation_id}"
    ada = await person(keys, tenant, "ada", "member")
    async with at_console(app, keys, tenant, ada) as client:
        form = {"key": hidden_field((await client.get(address)).text, "key"), "text": "Yes, we do."}
        for _ in range(2):
            assert (await client.post(f"{address}/reply", data=form)).status_code == 303
        page = (await client.get(address)).text
        assert page.count("Yes, we do.") == 1
        assert "being sent" in page
        other = await client.post(f"{address}/reply", data={**form, "text": "No."})
        assert other.status_code == 422
        assert ">No.</textarea>" in other.text
        assert hidden_field(other.text, "key") != form["key"]

        assert len(await Platform(database, settings, tenant).work()) == 1
        page = (await client.get(address)).text
        assert page.count("Yes, we do.") == 1
        assert "being sent" not in page
        assert (
            await client.post(f"{address}/reply", data={**form, "text": " "})
        ).status_code == 422

        await client.post(f"{address}/close", data={"key": form["key"]})
        await Platform(database, settings, tenant).work()
        page = (await client.get(address)).text
        assert "Ended by the agent" in page
        assert "<textarea" not in page


async def test_trap_54_two_operators_escalate_at_once_and_see_one_directive(
    app: FastAPI, keys: Keys, database: Database, settings: Settings, tenant: Tenant
) -> None:
    conversation_id = await converse(database, tenant, "Help")
    address = f"{INBOX}/{conversation_id}"
    ada, bob = [await person(keys, tenant, name, "member") for name in ("ada", "bob")]
    platform = Platform(database, settings, tenant)
    installation = await platform.install()
    async with (
        at_console(app, keys, tenant, ada) as one,
        at_console(app, keys, tenant, bob) as other,
    ):
        form = {"to": f"mattermost:{installation.id}"}
        answers = await asyncio.gather(
            *(client.post(f"{address}/escalate", data=form) for client in (one, other) * 3)
        )
        assert {answer.status_code for answer in answers} == {303}
        page = (await other.get(address)).text
        section = page[page.index('id="escalations"') :]
        (directive,) = {one for one in links_of(section) if one.startswith("/console/directives/")}
        assert "<li data-soon>" in section  # what becomes of it is looked for soon
        assert (await other.get(directive)).status_code == 200
        wrong = await one.post(f"{address}/escalate", data={"to": "email:evil@example.org"})
        assert wrong.status_code in (409, 422)


async def test_an_administrator_erases_a_visitor_and_says_so_first(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    conversation_id = await converse(database, tenant, "my number is 4711", name="Noor")
    address = f"{INBOX}/{conversation_id}"
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        assert (await client.post(f"{address}/erase", data={"sure": ""})).status_code == 422
        assert "4711" in (await client.get(address)).text
        assert (await client.post(f"{address}/erase", data={"sure": "yes"})).status_code == 303
        page = (await client.get(address)).text
    assert "4711" not in page
    assert "Noor" not in page
    assert f"what was said and by whom is gone, asked for by ada@{tenant.slug}" in page


async def test_trap_55_roles_hold_and_another_tenants_conversation_is_not_there(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant, new_tenant: object
) -> None:
    conversation_id = await converse(database, tenant, "Hello")
    address = f"{INBOX}/{conversation_id}"
    other = await new_tenant()  # type: ignore[operator]
    eve = await person(keys, other, "eve", "owner")
    viewer = await person(keys, tenant, "vera", "viewer")
    member = await person(keys, tenant, "max", "member")
    forms = {
        "reply": {"key": str(uuid4()), "text": "x"},
        "typing": {},
        "read": {"seq": "1"},
        "assign": {"user_id": ""},
        "escalate": {"to": f"mattermost:{uuid4()}"},
        "close": {"key": str(uuid4())},
        "erase": {"sure": "yes"},
    }
    for user, home, refused in ((eve, other, 404), (viewer, tenant, 403)):
        async with at_console(app, keys, home, user) as client:
            seen = await client.get(address)
            assert seen.status_code == (404 if refused == 404 else 200)
            assert 'method="post" action="/support' not in seen.text
            for action, form in forms.items():
                answer = await client.post(f"{address}/{action}", data=form)
                assert answer.status_code == refused, action
    async with at_console(app, keys, tenant, member) as client:
        assert (await client.post(f"{address}/erase", data=forms["erase"])).status_code == 403
        strange = {"user_id": str(eve)}
        assert (await client.post(f"{address}/assign", data=strange)).status_code == 422
    async with browsing(app) as nobody:
        answer = await nobody.get(address)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/console/sign-in?next={address}"
    async with database.tenant(tenant.schema) as session:
        assert await session.scalar(text("SELECT count(*) FROM directives")) == 0


async def test_every_site_shows_the_lines_of_its_mode_or_what_they_lack(
    app: FastAPI, keys: Keys, database: Database, settings: Settings, tenant: Tenant
) -> None:
    chat = Chat(database, settings, tenant)
    installation = await chat.installed()
    own = (await chat.site(name="<i>Own</i>")).key
    await chat.site(name="</textarea>", mode="charla_embed", charla_property_key="prop-7")
    async with at_console(
        app, keys, tenant, await person(keys, tenant, "vera", "viewer")
    ) as client:
        assert "/support/webchat/sites" in links_of((await client.get(INBOX)).text)
        page = (await client.get("/support/webchat/sites")).text
        assert f"data-site=&#34;{own}&#34;" in page
        assert "<i>Own" not in page
        assert "Set the address of Charla" in page
        vendor = "https://widget.charla.example/chat.js"
        await chat.configure(installation.id, charla_script_url=vendor)
        page = (await client.get("/support/webchat/sites")).text
    (lines,) = [
        unescape(one)
        for one in re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.S)
        if vendor in one
    ]
    assert lines.startswith("<script>\n")
    assert lines.endswith("</script>\n")
    assert '"\\u003c/textarea\\u003e"' in lines


async def test_the_deep_link_survives_signing_in(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    address = f"{INBOX}/{await converse(database, tenant, 'Hello')}"
    user = await person(keys, tenant, "ada", "member")
    key = await keys.user(tenant, "member", user_id=user)
    async with browsing(app) as client:
        to_sign_in = (await client.get(address)).headers["location"]
        wanted = hidden_field((await client.get(to_sign_in)).text, "next")
        answer = await client.post("/console/sign-in", data={"key": key, "next": wanted})
        assert answer.headers["location"] == address


async def test_trap_45_46_hostile_text_stays_text_and_only_web_pages_are_links(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    conversation_id = await converse(
        database, tenant, HOSTILE, name=HOSTILE[:100], page_url="javascript:alert(1)"
    )
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        for path in (INBOX, f"{INBOX}/{conversation_id}"):
            page = (await client.get(path)).text
            assert "<script>alert" not in page
            assert "<img src=x" not in page
            assert "\u202e" not in page
            assert 'title="right-to-left override"' in page
            assert not [one for one in links_of(page) if one.startswith("javascript:")]


async def test_the_inbox_hears_of_a_message_at_once_and_of_nobody_elses(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    platform: AppState = app.state.platform
    conversation_id = await converse(database, tenant, "Hello")
    elsewhere = await converse(database, tenant, "Hi")
    with (
        platform.chat_live.watch(tenant.schema) as mine,
        platform.chat_live.watch("t_nobody") as others,
    ):
        async with database.tenant(tenant.schema) as session:
            found = await session.get_one(ChatConversation, conversation_id)
            await add_words(session, found, "Are you there?", platform.clock())
        platform.chat_live.tell(tenant.schema, conversation_id)
        platform.chat_live.tell_typing(tenant.schema, elsewhere, "visitor")
        platform.chat_live.tell_typing(tenant.schema, elsewhere, "agent")
        await mine.wait(20)
        assert mine.take() == ({conversation_id}, {elsewhere}, False)
        assert others.take() == (set(), set(), False)


async def test_events_of_one_conversation_name_it_alone(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    platform: AppState = app.state.platform
    wanted = await converse(database, tenant, "Hello")
    other = await converse(database, tenant, "Hi")

    async def tell_of_both() -> None:
        while not platform.chat_live._watchers:
            await asyncio.sleep(0.01)
        (watcher,) = platform.chat_live._watchers[tenant.schema]
        for one in (other, wanted):
            platform.chat_live.tell(tenant.schema, one)
            while watcher.changed:
                await asyncio.sleep(0.01)
        platform.closing.set()

    telling = asyncio.create_task(tell_of_both())
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "viewer")) as client:
        async with asyncio.timeout(60):
            answer = await client.get(
                "/support/webchat/events", params={"conversation": str(wanted)}
            )
    await telling
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    found = re.findall(r"event: (\w+)\ndata: (.*)\n", answer.text)
    assert [(kind, json.loads(data)) for kind, data in found] == [("changed", [str(wanted)])]
