"""The team's side: sites by directive, replies, closing, escalation to Mattermost, each once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling, problem_id
from tests.api.webchat.test_access import forget_sites
from tests.api.webchat.test_messages import signals_of
from tests.api.webchat.widget import ORIGIN, Widget, make_site
from tests.doubles.mattermost import RunningMattermost
from tests.doubles.mattermost.text import Mentions
from tests.packages.installed import Platform, connected

INBOX = "/api/v1/webchat/conversations"


@pytest.fixture
def platform(database: Database, settings: Settings, tenant: Tenant) -> Platform:
    """Works off the tenant's directives."""
    return Platform(database, settings, tenant)


@pytest.fixture
async def team(app: FastAPI, keys: Keys, tenant: Tenant) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a member's key."""
    async with calling(app, await keys.user(tenant, role="member")) as client:
        yield client


async def done(platform: Platform, answer: httpx.Response, state: str = "succeeded") -> None:
    """Work off what was asked for."""
    assert answer.status_code == 202, answer.text
    outcomes = await platform.work()
    found = [one for one in outcomes if str(one.directive_id) == answer.json()["directive_id"]]
    assert [one.state for one in found] == [state], found


async def test_a_site_is_registered_given_a_new_secret_and_switched_off(
    app: FastAPI, owner_client: httpx.AsyncClient, client: httpx.AsyncClient, platform: Platform
) -> None:
    new = {"name": "Shop", "origins": ["https://SHOP.example:443"], "settings": {"greeting": "Hi"}}
    await done(platform, await owner_client.post("/api/v1/webchat/sites", json=new))
    (site,) = (await owner_client.get("/api/v1/webchat/sites")).json()["items"]
    assert (site["origins"], site["status"]) == ([ORIGIN], "active")
    widget = Widget(client, site["site_key"])
    assert (await widget.bootstrap())["site"]["greeting"] == "Hi"
    old = widget.token
    own = site["links"]["self"]
    await done(platform, await owner_client.post(f"{own}/secrets", json={}))
    forget_sites(app)
    assert (await widget.post("sessions")).status_code == 201
    await widget.bootstrap()
    assert widget.token.partition(".")[0] != old.partition(".")[0]
    await done(platform, await owner_client.post(f"{own}/disable"))
    forget_sites(app)
    assert problem_id(await widget.post("bootstrap"), 403) == "site-disabled"
    changed = {**new, "site_id": site["id"], "settings": {"greeting": "Hello again"}}
    await done(platform, await owner_client.post("/api/v1/webchat/sites", json=changed))
    forget_sites(app)
    assert (await widget.bootstrap())["site"]["greeting"] == "Hello again"


@pytest.mark.parametrize(
    "wrong",
    [
        {"origins": ["*"]},
        {"origins": ["https://shop.example/path"]},
        {"settings": {"theme": {"accent": "red"}}},
        {"settings": {"consent": {"version": "1", "text": "x", "link": "javascript:alert(1)"}}},
        {"settings": {"hours": {"zone": "Nowhere", "week": {}}}},
        {"settings": {"token_seconds": 901}},
        {"settings": {"unknown": 1}},
        {"name": ""},
    ],
)
async def test_a_site_that_cannot_be_is_refused_when_it_is_asked_for(
    owner_client: httpx.AsyncClient, wrong: dict[str, Any]
) -> None:
    new = {"name": "Shop", "origins": [ORIGIN], **wrong}
    answer = await owner_client.post("/api/v1/webchat/sites", json=new)
    assert problem_id(answer, 422) == "invalid"


async def test_a_reply_reaches_the_visitor_once_with_its_signal(
    widget: Widget,
    team: httpx.AsyncClient,
    platform: Platform,
    database: Database,
    tenant: Tenant,
) -> None:
    await widget.begin()
    await widget.say("Do you ship to Iceland?")
    thread = (await team.get(f"{INBOX}/{widget.conversation}")).json()
    assert [m["text"] for m in thread["messages"]] == ["Do you ship to Iceland?"]
    assert (thread["conversation"]["unread"], thread["more"]) == (1, False)
    assert thread["conversation"]["waiting_since"] is not None
    reply = {"text": "We do.", "author": "Anna"}
    url, key = f"{INBOX}/{widget.conversation}/replies", {"Idempotency-Key": "r1"}
    first = await team.post(url, json=reply, headers=key)
    again = await team.post(url, json=reply, headers=key)
    assert first.json()["directive_id"] == again.json()["directive_id"]
    await done(platform, first)
    page = (await widget.get("messages", conversation_id=widget.conversation)).json()
    last = page["messages"][-1]
    assert (last["role"], last["author"], last["text"], last["seq"]) == (
        "agent",
        "Anna",
        "We do.",
        2,
    )
    assert len(page["messages"]) == 2
    assert page["conversation"]["agent"] == "Anna"
    (told,) = await signals_of(database, tenant, "webchat.reply.sent")
    assert (told["text"], told["author"]) == ("We do.", "Anna")
    thread = (await team.get(f"{INBOX}/{widget.conversation}")).json()
    assert (thread["conversation"]["unread"], thread["conversation"]["waiting_since"]) == (0, None)


async def test_the_team_lists_assigns_reads_and_closes(
    new_widget: Callable[[], Widget],
    team: httpx.AsyncClient,
    platform: Platform,
    keys: Keys,
    tenant: Tenant,
) -> None:
    first, second = new_widget(), new_widget()
    for one in (first, second):
        await one.begin()
        await one.say("hello")
    listed = (await team.get(INBOX, params={"status": "open", "limit": 1})).json()
    assert [one["id"] for one in listed["items"]] == [second.conversation]
    query = {"status": "open", "limit": 1, "cursor": listed["next_cursor"]}
    rest = (await team.get(INBOX, params=query)).json()
    assert [one["id"] for one in rest["items"]] == [first.conversation]
    own = f"{INBOX}/{first.conversation}"
    user_id = str(await keys.member(tenant, "ada@example.org", "member"))
    assigned = await team.put(f"{own}/assignee", json={"user_id": user_id})
    assert assigned.json()["assignee"] == f"user:{user_id}"
    mine = (await team.get(INBOX, params={"assignee": f"user:{user_id}"})).json()["items"]
    assert [one["id"] for one in mine] == [first.conversation]
    stranger = await team.put(f"{own}/assignee", json={"user_id": str(uuid4())})
    assert problem_id(stranger, 422) == "invalid"
    for seq, unread in ((1, 0), (0, 0), (99, 0)):
        assert (await team.post(f"{own}/read", json={"seq": seq})).json()["unread"] == unread
    await done(platform, await team.post(f"{own}/close"))
    assert problem_id(await first.say("more"), 409) == "conversation-closed"
    late = await team.post(f"{own}/replies", json={"text": "too late", "author": "Anna"})
    await done(platform, late, "failed")
    closed = (await team.get(INBOX, params={"status": "closed"})).json()["items"]
    assert [one["id"] for one in closed] == [first.conversation]


async def test_typing_is_shown_and_kept_nowhere(widget: Widget, team: httpx.AsyncClient) -> None:
    await widget.begin()
    own = f"{INBOX}/{widget.conversation}"
    assert (await team.get(own)).json()["visitor_typing"] is False
    of = {"conversation_id": widget.conversation}
    assert (await widget.post("typing", of)).status_code == 204
    assert (await team.get(own)).json()["visitor_typing"] is True
    assert (await team.post(f"{own}/typing")).status_code == 204


async def test_t47_t49_a_first_message_is_posted_once_without_working_mentions_or_links(
    client: httpx.AsyncClient,
    team: httpx.AsyncClient,
    platform: Platform,
    mattermost: RunningMattermost,
    database: Database,
    settings: Settings,
    tenant: Tenant,
) -> None:
    installation = await connected(platform, mattermost)
    notify = {"installation_id": str(installation.id)}
    site = await make_site(database, settings, tenant, notify=notify)
    widget = Widget(client, site.site_key)
    await widget.begin(contact={"name": "@channel [x](https://evil.example)"})
    await widget.say("@all <!here> ``` [click](https://evil.example) https://evil.example")
    await widget.say("a second message")
    await platform.work()
    (post,) = mattermost.posts
    assert post.mentions == Mentions()
    link = f"{settings.api_url}/support/webchat/conversations/{widget.conversation}"
    assert f"[Open the conversation]({link})" in post.message
    for bad in ("@all ", "@channel", "@here", "](https://evil", "https://evil"):
        assert bad not in post.message
    (created,) = await signals_of(database, tenant, "webchat.escalation.created")
    (notified,) = await signals_of(database, tenant, "webchat.escalation.notified")
    assert created["directive_id"] == notified["directive_id"]
    # T54: two people at once, and the platform before them: one directive.
    url, to = f"{INBOX}/{widget.conversation}/escalations", {**notify, "channel": None}
    answers = await asyncio.gather(*(team.post(url, json=to) for _ in range(3)))
    assert {answer.json()["directive_id"] for answer in answers} == {created["directive_id"]}
    await platform.work()
    assert len(mattermost.posts) == 1


async def test_t54_two_at_once_escalate_once(
    widget: Widget,
    team: httpx.AsyncClient,
    platform: Platform,
    mattermost: RunningMattermost,
) -> None:
    installation = await connected(platform, mattermost)
    await widget.begin()
    await widget.say("hello")
    url = f"{INBOX}/{widget.conversation}/escalations"
    to = {"installation_id": str(installation.id)}
    answers = await asyncio.gather(*(team.post(url, json=to) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["directive_id"] for answer in answers}) == 1
    await platform.work()
    assert len(mattermost.posts) == 1


async def test_an_escalation_that_cannot_be_posted_is_told_of(
    widget: Widget,
    team: httpx.AsyncClient,
    platform: Platform,
    database: Database,
    tenant: Tenant,
) -> None:
    await widget.begin()
    url = f"{INBOX}/{widget.conversation}/escalations"
    answer = await team.post(url, json={"installation_id": str(uuid4())})
    await done(platform, answer, "failed")
    (failed,) = await signals_of(database, tenant, "webchat.escalation.failed")
    assert failed["error_kind"] == "auth"


async def test_t56_what_the_team_wrote_is_forgotten_too(
    widget: Widget,
    team: httpx.AsyncClient,
    platform: Platform,
    database: Database,
    tenant: Tenant,
) -> None:
    await widget.begin()
    reply = {"text": "Dear Zebulon, it is sent", "author": "Anna"}
    await done(platform, await team.post(f"{INBOX}/{widget.conversation}/replies", json=reply))
    await widget.post("erase")
    async with database.tenant(tenant.schema) as session:
        for table in ("website_chat_messages", "signals", "directives"):
            rows = await session.scalars(text(f"SELECT t::text FROM {table} t"))
            assert not [row for row in rows if "Zebulon" in row], table
    thread = (await team.get(f"{INBOX}/{widget.conversation}")).json()
    assert thread["conversation"]["status"] == "erased"
    assert [m["text"] for m in thread["messages"]] == [None]


async def test_t55_another_tenants_conversation_is_missing(
    app: FastAPI,
    widget: Widget,
    keys: Keys,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    await widget.begin()
    async with calling(app, await keys.user(await new_tenant())) as stranger:
        answer = await stranger.get(f"{INBOX}/{widget.conversation}")
        assert problem_id(answer, 404) == "not-found"
        assert (await stranger.get(INBOX)).json()["items"] == []
