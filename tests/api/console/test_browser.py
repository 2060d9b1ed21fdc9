"""The console in a real browser: without script, on a phone, by keyboard, under its strict policy."""

import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from playwright.async_api import BrowserContext, Page, async_playwright, expect
from sqlalchemy import select

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives import service
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.models import Directive
from fleetprompt.packages.models import Installation
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.signals.models import Signal
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatConversation
from tests.api.console.support import Place, add_words, converse, furnish, person
from tests.api.serving import Server, serving
from tests.api.support import Keys

pytestmark = pytest.mark.slow

# Counts what the policy refused, before anything of the page runs.
_COUNT_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(settings, tmp_path_factory.mktemp("server")) as running:
        yield running


@asynccontextmanager
async def browser(**options: Any) -> AsyncIterator[BrowserContext]:
    """A window of Debian's Chromium, or of the one that Playwright installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        context = await running.new_context(**options)
        context.set_default_timeout(20_000)
        try:
            yield context
        finally:
            await context.close()
            await running.close()


async def _signed_in(
    context: BrowserContext, server: Server, keys: Keys, tenant: Tenant, name: str = "ada"
) -> Page:
    user_id = await person(keys, tenant, name, "admin")
    link = await Sessions(keys.database, keys.settings).make_link(tenant, user_id)
    page = await context.new_page()
    await page.goto(f"{server.url}/console/link/{link}")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text(tenant.slug)
    return page


async def _state(database: Database, tenant: Tenant, place: Place) -> tuple[str, Any]:
    async with database.tenant(tenant.schema) as session:
        found = await session.get_one(Directive, place.directive_id)
        return found.state, found.params["config"]


async def test_approve_reject_and_edit_work_without_script(
    server: Server, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant, correlation_id="first")
    async with browser(java_script_enabled=False) as context:
        page = await _signed_in(context, server, keys, tenant)
        await page.get_by_role("link", name="package.configure").click()
        await page.get_by_text("Edit …").click()
        await page.get_by_label("config").fill('{"timezone": "Europe/Lisbon"}')
        await page.get_by_role("button", name="Save as version 2").click()
        await expect(page.get_by_role("button", name="Approve version 2")).to_be_visible()
        new = ("awaiting_approval", {"timezone": "Europe/Lisbon"})
        assert await _state(database, tenant, place) == new
        await page.get_by_role("button", name="Approve version 2").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("approved")
        assert (await _state(database, tenant, place))[0] == "pending"

        other = await furnish(database, tenant, correlation_id="second")
        await page.get_by_role("link", name="Overview").click()
        await page.get_by_role("link", name="package.configure").click()
        await page.get_by_text("Reject …").click()
        await page.get_by_label(re.compile("Why")).fill("not on a Friday")
        await page.get_by_role("button", name="Reject version 1").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("rejected")
        assert (await _state(database, tenant, other))[0] == "cancelled"

        await page.locator(".account summary").click()
        await page.get_by_role("button", name="Sign out", exact=True).click()
        await expect(page.get_by_label("Your API key")).to_be_visible()


async def test_approving_what_somebody_else_has_edited_meanwhile_is_refused(
    server: Server, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    address = f"{server.url}/console/approvals/{place.approval_id}"
    async with browser() as one, browser() as two:
        ada = await _signed_in(one, server, keys, tenant)
        ben = await _signed_in(two, server, keys, tenant, "ben")
        await ben.goto(address)
        await ada.goto(address)
        await ada.get_by_text("Edit …").click()
        await ada.get_by_label("config").fill("{}")
        await ada.get_by_role("button", name="Save as version 2").click()
        await expect(ada.get_by_role("button", name="Approve version 2")).to_be_visible()
        await ben.get_by_role("button", name="Approve version 1").click()
        await expect(ben.get_by_role("heading", level=1)).to_have_text("Nothing was decided")
        assert await _state(database, tenant, place) == ("awaiting_approval", {})
        await ben.get_by_role("link", name="See version 2, the newest").click()
        await expect(ben.get_by_role("button", name="Approve version 2")).to_be_visible()


async def test_every_page_fits_is_accessible_and_breaks_no_rule_of_its_policy(
    server: Server, keys: Keys, database: Database, tenant: Tenant, axe: str
) -> None:
    place = await furnish(database, tenant, correlation_id="W" * 200)
    chat = await converse(database, tenant, "W" * 300, name="W" * 100)
    async with database.tenant(tenant.schema) as session:
        signal = await session.scalar(select(Signal.id).limit(1))
        # So that its page has every form.
        (await session.get_one(Installation, place.installation_id)).state = "installed"
    told: list[str] = []
    found: dict[str, list[str]] = {}
    # Colours that are on their way to others are nobody's.
    async with browser(reduced_motion="reduce") as context:
        await context.add_init_script(_COUNT_VIOLATIONS)
        page = await _signed_in(context, server, keys, tenant)
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        for path in (
            *("", "/approvals?show=all", "/directives", f"/approvals/{place.approval_id}"),
            *(f"/directives/{place.installed_id}", f"/directives/{place.directive_id}"),
            *("/timeline", f"/timeline/{place.correlation_id}", "/signals", "/executions"),
            *("/installations", f"/installations/{place.installation_id}"),
            *(f"/executions/{place.execution_id}", f"/signals/{signal}", "/connectors"),
            *("/../support/webchat/conversations", "/../support/webchat/sites"),
            f"/../support/webchat/conversations/{chat}",
        ):
            await page.goto(f"{server.url}/console{path}")
            await page.locator("main details").evaluate_all(_OPEN)
            assert await page.locator("h1").count() == 1, path
            for width, scheme in _LOOKS:
                await page.set_viewport_size({"width": width, "height": 800})
                await page.emulate_media(color_scheme=scheme)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
                bar = await page.locator("header.bar").bounding_box()
                assert bar is not None
                assert bar["height"] < 60 or width < 1200, f"{path}: the bar takes two lines"
                found[f"{path} {width}"] = await findings(page, axe)
            assert await page.evaluate("window.violations") == [], path
    assert {path: all_of for path, all_of in found.items() if all_of} == {}
    assert told == []


_LOOKS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((1280, "light"), (375, "dark"))
_OPEN = "(all) => { for (const one of all) one.open = true; }"
_CHECK = """
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => violations.flatMap(
  ({id, nodes}) => nodes.map(({target, failureSummary}) => `${id}: ${target} ${failureSummary}`)))
"""


async def findings(page: Page, axe: str) -> list[str]:
    """What the accessibility checker finds; its source is evaluated, which no policy forbids."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(axe)
    found: list[str] = await page.evaluate(_CHECK)
    return found


async def test_it_is_worked_by_keyboard_with_the_focus_always_in_sight(
    server: Server, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    async with browser() as context:
        page = await _signed_in(context, server, keys, tenant)
        await page.goto(f"{server.url}/console/approvals/{place.approval_id}")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await page.keyboard.press("Enter")
        approve = page.get_by_role("button", name="Approve version 1")
        for _ in range(10):
            await page.keyboard.press("Tab")
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
            assert float(outline.removesuffix("px")) >= 2
            if await approve.evaluate("(one) => one === document.activeElement"):
                break
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_contain_text("approved")

        first, second = [await converse(database, tenant, "Hello", name=name) for name in "AB"]
        await page.goto(f"{server.url}/support/webchat/conversations")
        conversations = page.locator(".conversations .row-title")
        await expect(conversations).to_have_text(["A", "B"])
        await page.keyboard.press("j")  # the list does not have the focus
        assert await page.evaluate("document.activeElement.tagName") == "BODY"
        await conversations.nth(0).focus()
        await page.keyboard.press("j")
        await expect(conversations.nth(1)).to_be_focused()
        await page.keyboard.press("k")
        await expect(conversations.nth(0)).to_be_focused()
        # A list that is renewed keeps the focus where it was.
        async with database.tenant(tenant.schema) as session:
            found = await session.get_one(ChatConversation, second)
            await add_words(session, found, "Are you there?", system_clock())
        await page.evaluate("renewSoon()")
        await expect(page.locator("#list")).to_contain_text("Are you there?")
        await expect(conversations.nth(0)).to_be_focused()
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"**/conversations/{first}")
    assert (await _state(database, tenant, place))[0] == "pending"


async def test_a_page_renews_itself_and_leaves_alone_what_somebody_is_writing(
    server: Server, keys: Keys, database: Database, tenant: Tenant
) -> None:
    async with browser() as context:
        await context.clock.install()
        page = await _signed_in(context, server, keys, tenant)
        await expect(page.get_by_text("Nothing waits for a decision.")).to_be_visible()
        place = await furnish(database, tenant)
        await context.clock.fast_forward(10_000)
        await page.get_by_role("link", name="package.configure").click()

        await page.get_by_text("Reject …").click()
        reason = page.get_by_label(re.compile("Why"))
        await reason.fill("half a sent")
        async with database.tenant(tenant.schema) as session:
            directive = await session.get_one(Directive, place.directive_id)
            await service.cancel(session, tenant, directive.id, Actor("user:somebody", "owner"))
        await context.clock.fast_forward(10_000)
        await expect(page.locator("#standing")).to_contain_text("withdrawn")
        await expect(reason).to_have_value("half a sent")


async def test_t20_another_sites_form_decides_nothing(
    server: Server, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    async with database.tenant(tenant.schema) as session:
        shown = (await approvals.get_approval(session, place.approval_id)).action_sha256
    async with browser() as context:
        page = await _signed_in(context, server, keys, tenant)
        target = f"{server.url}/console/approvals/{place.approval_id}/approve"
        form = (
            f'<form method="post" action="{target}"><input name="hash" value="{shown}">'
            "<button>Win</button></form>"
        )
        for elsewhere in ("http://evil.example/", server.url.replace("127.0.0.1", "localhost")):
            await page.route(
                f"{elsewhere.rstrip('/')}/",
                lambda route: route.fulfill(content_type="text/html", body=form),
            )
            await page.goto(elsewhere)
            async with page.expect_response(target) as answered:
                await page.get_by_role("button", name="Win").click()
            assert (await answered.value).status == 403
            assert (await _state(database, tenant, place))[0] == "awaiting_approval"
