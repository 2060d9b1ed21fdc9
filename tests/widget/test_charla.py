"""Charla's lines in a browser: nothing of the vendor before consent, on listed pages alone, and nothing told.

The vendor is a stand-in on this machine. The pages are on names of this machine too (``localhost``).
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from fleetprompt.webchat.charla import charla_snippet
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.site_settings import SiteSettings
from fleetprompt.webchat.tenant_settings import ChatSettings
from tests.doubles.http_server import Answer, HttpServer, Request
from tests.widget.shop import NONCE

pytestmark = pytest.mark.slow

HOSTILE = (
    "</script><script>window.broken = 1</script>",
    "<!--<script>",
    "'\"`${window.broken = 1}\\",
    "line\u2028separator\u2029 & <img src=x onerror='window.broken = 1'>",
    "]]></script >",
)
PRIVATE = "noor@example.org"


class Vendor(HttpServer):
    """Serves the script, which notes what it was told."""

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> Answer | None:
        script = b"document.documentElement.dataset.told = JSON.stringify(window.CharlaSettings);"
        return Answer(200, script, {"Content-Type": "text/javascript"})


class Pages(HttpServer):
    """A website that knows who its visitor is, under a policy of nonces."""

    lines = ""
    policy = ""

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> Answer | None:
        page = (
            f'<!doctype html><html lang="en"><head><title>Order of {PRIVATE}</title>'
            '<link rel="icon" href="data:,"></head>'
            f'<body><h1>Your order</h1><input value="{PRIVATE}">{self.lines}</body></html>'
        )
        headers = {"Content-Type": "text/html; charset=utf-8"}
        headers |= {"Content-Security-Policy": self.policy}
        headers |= {"Set-Cookie": f"visitor={PRIVATE}; Path=/"}
        return Answer(200, page.encode(), headers)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    server = Vendor()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pages(vendor: Vendor) -> Iterator[Pages]:
    server = Pages()
    server.start()
    server.policy = (
        f"default-src 'none'; img-src data:; script-src 'nonce-{NONCE}' {_address(vendor)}"
    )
    yield server
    server.stop()


def _address(vendor: Vendor) -> str:
    return f"http://127.0.0.1:{vendor.port}"


def lines(vendor: Vendor, origins: list[str], *, name: str = "Shop", **settings: Any) -> str:
    """The lines with the page's nonce, as the platform makes them of these settings."""
    given = {"charla_property_key": "prop-7", "title": "Chat", **settings}
    checked = SiteSettings.model_validate(given).model_dump(mode="json", exclude_defaults=True)
    site = ChatSite(
        id=UUID(int=7),
        site_key="fp_pub_canary",
        name=name,
        status="active",
        mode="charla_embed",
        origins=origins,
        settings=checked,
        inserted_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    chat = ChatSettings(charla_script_url=f"{_address(vendor)}/chat.js?v=1")
    return charla_snippet(site, chat).replace("<script>", f'<script nonce="{NONCE}">', 1)


def at(pages: Pages, host: str, path: str = "/") -> str:
    return f"http://{host}:{pages.port}{path}"


def kept(page: Page) -> list[str]:
    """The names of what the page stored, besides the website's own cookie."""
    found: list[str] = page.evaluate(
        "[...Object.keys(localStorage), ...Object.keys(sessionStorage),"
        " ...document.cookie.split('; ').filter((one) => !one.startsWith('visitor='))]"
    )
    return found


def test_nothing_of_the_vendor_before_the_visitor_agrees_and_nothing_of_the_visitor_after_it(
    context: BrowserContext, pages: Pages, vendor: Vendor
) -> None:
    origin = at(pages, "shop.localhost", "")
    pages.lines = lines(vendor, [origin]) * 2  # pasted twice they are one chat
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.goto(f"{origin}/cart?email={PRIVATE}#{PRIVATE}")
    box = page.locator("#charla-consent")
    expect(box).to_have_count(1)
    opener = box.get_by_role("button", name="Chat")
    opener.press("Enter")
    expect(box.get_by_role("button", name="I agree")).to_be_focused()
    box.get_by_role("button", name="Close").press("Enter")
    expect(opener).to_be_focused()
    assert vendor.requests == []
    assert kept(page) == []
    assert page.evaluate("window.CharlaSettings") is None
    opener.click()
    box.get_by_role("button", name="I agree").click()
    expect(page.locator("html")).to_have_attribute("data-told", '{"property_key":"prop-7"}')
    expect(box).to_have_count(0)
    assert kept(page) == ["charla-consent:1"]
    (request,) = vendor.requests
    assert request.target == "/chat.js?v=1"
    assert request.headers["referer"] == f"{origin}/"
    assert "cookie" not in request.headers
    assert PRIVATE not in f"{request.target}{request.headers}{request.body!r}"
    # Who agreed is not asked again.
    page.reload()
    expect(page.locator("html[data-told]")).to_be_attached()
    assert box.count() == 0
    assert {one.partition("?")[0] for one in asked} == {
        *(f"{origin}/cart", f"{_address(vendor)}/chat.js"),
        *(one for one in asked if one.startswith("data:")),
    }


def test_where_nothing_can_be_stored_the_chat_comes_and_asks_again_on_the_next_page(
    context: BrowserContext, pages: Pages, vendor: Vendor
) -> None:
    denied = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }})"
    context.add_init_script(denied)
    pages.lines = lines(vendor, [at(pages, "shop.localhost", "")])
    page = context.new_page()
    for _ in range(2):
        page.goto(at(pages, "shop.localhost"))
        page.get_by_role("button", name="Chat").click()
        page.get_by_role("button", name="I agree").click()
        expect(page.locator("html[data-told]")).to_be_attached()


def test_trap_36_on_pages_that_are_not_on_the_list_nothing_happens(
    context: BrowserContext, pages: Pages, vendor: Vendor
) -> None:
    listed = [at(pages, host, "") for host in ("shop.localhost", "*.brand.localhost")]
    pages.lines = lines(vendor, listed)
    page = context.new_page()
    for host, works in (
        ("shop.localhost", True),
        ("de.brand.localhost", True),
        ("brand.localhost", False),
        ("a.b.brand.localhost", False),
        ("shop.localhost.evil.localhost", False),
        ("127.0.0.1", False),
    ):
        page.goto(at(pages, host))
        assert page.locator("#charla-consent").count() == int(works), host
    for other in (
        lines(vendor, ["http://shop.localhost:1"]),
        lines(vendor, ["https://shop.localhost"]),
    ):
        pages.lines = other
        page.goto(at(pages, "shop.localhost"))
        assert page.locator("#charla-consent").count() == 0
    page.goto("about:blank")
    page.set_content(lines(vendor, listed))  # a page of origin `null`
    assert page.locator("#charla-consent").count() == 0
    assert vendor.requests == []


def test_trap_45_what_a_tenant_writes_is_text_on_the_page(
    context: BrowserContext, pages: Pages, vendor: Vendor
) -> None:
    link = "https://shop.example/p?a=1&b='\"<x>"
    page = context.new_page()
    for hostile in HOSTILE:
        consent = {"version": "2", "text": hostile, "link": link}
        origins = [at(pages, "shop.localhost", "")]
        pages.lines = lines(vendor, origins, name=hostile, title=None, consent=consent)
        page.goto(at(pages, "shop.localhost"))
        box = page.locator("#charla-consent")
        assert box.get_attribute("aria-label") == hostile
        box.get_by_role("button").click()
        assert box.locator("p").evaluate("(one) => one.textContent") == hostile
        assert box.get_by_role("link").get_attribute("rel") == "noopener noreferrer"
        assert page.evaluate("window.broken") is None
        assert page.locator("img, body script").count() == 1
    assert vendor.requests == []
