"""What the package website_chat adds over HTTP: mail, drafts, Charla's lines, a CAPTCHA on the plain page."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling, problem_id
from tests.api.webchat.test_plain_page import Visitor
from tests.api.webchat.widget import Widget, make_site
from tests.doubles.captcha import SECRET, CaptchaVendor, running_vendor
from tests.packages.chat_installed import TEAM, Chat

INBOX = "/api/v1/webchat/conversations"


@pytest.fixture
def vendor() -> Iterator[CaptchaVendor]:
    with running_vendor() as running:
        yield running


@pytest.fixture
def settings(settings: Settings, vendor: CaptchaVendor) -> Settings:
    """With the CAPTCHA's vendor where the stand-in is."""
    return settings.model_copy(update={"hcaptcha_url": vendor.url})


@pytest.fixture
def chat(database: Database, settings: Settings, tenant: Tenant) -> Chat:
    """The platform as one tenant uses it."""
    return Chat(database, settings, tenant)


@pytest.fixture
async def team(app: FastAPI, keys: Keys, tenant: Tenant) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a member's key."""
    async with calling(app, await keys.user(tenant, role="member")) as client:
        yield client


async def test_a_conversation_is_mailed_once_to_an_address_that_administrators_set(
    chat: Chat, widget: Widget, team: httpx.AsyncClient
) -> None:
    await chat.installed(email_to=[TEAM])
    await widget.begin()
    await widget.say("hello")
    url = f"{INBOX}/{widget.conversation}/escalations"
    first, again = [await team.post(url, json={"to": "email"}) for _ in range(2)]
    assert first.status_code == 202
    assert first.json()["directive_id"] == again.json()["directive_id"]
    named = await team.post(url, json={"to": "email", "email": TEAM.upper()})
    assert named.json()["directive_id"] == first.json()["directive_id"]
    for wrong in ({"to": "email", "email": "x@elsewhere.example"}, {}, {"to": "sms"}):
        assert problem_id(await team.post(url, json=wrong), 422) == "invalid"


async def test_a_draft_is_asked_for_where_drafts_are_on(
    chat: Chat, widget: Widget, team: httpx.AsyncClient
) -> None:
    await chat.installed()
    await widget.begin()
    await widget.say("hello")
    url = f"{INBOX}/{widget.conversation}/drafts"
    assert problem_id(await team.post(url), 409) == "conflict"
    installation = await chat.installed()
    await chat.configure(installation.id, reply_drafts=True)
    first, again = [await team.post(url) for _ in range(2)]
    assert first.status_code == 202
    assert first.json()["directive_id"] == again.json()["directive_id"]
    thread = (await team.get(f"{INBOX}/{widget.conversation}")).json()
    assert thread["conversation"]["links"]["drafts"] == url


async def test_a_site_of_charlas_has_charlas_lines_and_takes_no_message(
    chat: Chat, owner_client: httpx.AsyncClient, client: httpx.AsyncClient
) -> None:
    await chat.installed(
        mode="charla_embed", charla_script_url="https://widget.charla.example/chat.js"
    )
    new: dict[str, Any] = {
        "name": "Shop",
        "origins": ["https://shop.example"],
        "settings": {"charla_property_key": "prop-7"},
    }
    await owner_client.post("/api/v1/webchat/sites", json=new)
    await chat.work()
    (site,) = (await owner_client.get("/api/v1/webchat/sites")).json()["items"]
    assert site["mode"] == "charla_embed"
    found = (await owner_client.get(site["links"]["snippet"])).json()
    assert "https://widget.charla.example/chat.js" in found["html"]
    assert found["integrity"] is None
    refused = await Widget(client, site["site_key"]).post("bootstrap")
    assert problem_id(refused, 403) == "site-disabled"


async def test_the_plain_page_offers_the_tenants_captcha_where_work_would_be_asked(
    chat: Chat,
    database: Database,
    settings: Settings,
    tenant: Tenant,
    client: httpx.AsyncClient,
    vendor: CaptchaVendor,
) -> None:
    installation = await chat.installed(captcha="hcaptcha", captcha_site_key="public-7")
    await chat.connect_kind(installation.id, "captcha", SECRET)
    site = await make_site(database, settings, tenant, limits={"free_sessions_per_address_hour": 0})
    visitor = Visitor(client, site)
    page = await visitor.come()
    assert "hcaptcha" not in page.text + page.headers["content-security-policy"]
    asked = await visitor.send(text="hello")
    assert asked.status_code == 403
    assert 'class="h-captcha" data-sitekey="public-7"' in asked.text
    assert "script-src https://hcaptcha.com" in asked.headers["content-security-policy"]
    assert "hello" in asked.text
    refused = await visitor.send(text="hello", **{"h-captcha-response": "made-up"})
    assert refused.status_code == 403
    vendor.answers = {"good"}
    done = await visitor.send(text="hello", **{"h-captcha-response": "good"})
    assert done.status_code == 200, done.text
    assert visitor.said() == ["hello"]
    assert "hcaptcha" not in done.text
