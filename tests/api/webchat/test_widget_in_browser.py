"""The widget that is built here, on a page of another origin under the strictest policy, and the inbox."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, async_playwright, expect
from sqlalchemy import text

from demo.site import chat
from demo.site.server import serving as demo_site
from demo.story import Api
from fleetprompt.db.engine import Database
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import person
from tests.api.serving import Server, serving
from tests.api.support import Keys
from tests.packages.installed import Platform
from tests.ports import free_port

pytestmark = pytest.mark.slow

_WIDGET = Path(__file__).parents[3] / "widget"
_SOURCES = ("src", "build.mjs", "package.json", "package-lock.json", "tsconfig.json", ".npmrc")
_COUNT_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The widget's files, built from its sources with the packages that are there or the locked ones."""
    copy = tmp_path / "widget"
    copy.mkdir()
    for name in _SOURCES:
        source = _WIDGET / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    if (_WIDGET / "node_modules" / "esbuild").is_dir():
        (copy / "node_modules").symlink_to(_WIDGET / "node_modules")
    else:
        subprocess.run(["npm", "ci"], cwd=copy, check=True, timeout=300, capture_output=True)
    subprocess.run(["npm", "run", "build"], cwd=copy, check=True, timeout=300, capture_output=True)
    return copy / "dist"


@pytest.fixture
def server(settings: Settings, tmp_path: Path, built: Path) -> Iterator[Server]:
    with serving(settings, tmp_path, FLEETPROMPT_WIDGET_DIR=str(built)) as running:
        yield running


@pytest.fixture
async def contexts() -> AsyncIterator[tuple[BrowserContext, BrowserContext]]:
    """A visitor's browser and an operator's."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        made = [await running.new_context(locale="en-GB") for _ in range(2)]
        for context in made:
            context.set_default_timeout(30_000)
            await context.add_init_script(_COUNT_VIOLATIONS)
        yield made[0], made[1]
        for context in made:
            for page in context.pages:
                assert await page.evaluate("window.violations") == [], page.url
            await context.close()
        await running.close()


@asynccontextmanager
async def working(platform: Platform) -> AsyncIterator[None]:
    """Work off what is asked for, as the platform's worker does."""

    async def work() -> None:
        while True:
            await platform.work()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _on_the_site(server: Server, key: str, origin: str) -> str:
    """The lines for the demo's pages, in the form whose integrity browsers check."""
    api = Api(server.url, key)
    try:
        await asyncio.to_thread(chat.snippet, api, origin)
        (site,) = api.call("GET", "/api/v1/webchat/sites")["items"]
        return str(api.call("GET", site["links"]["snippet"])["pinned_html"])
    finally:
        api.close()


async def test_trap_25_26_a_message_becomes_a_signal_is_answered_in_the_inbox_and_the_answer_is_seen(
    server: Server,
    contexts: tuple[BrowserContext, BrowserContext],
    keys: Keys,
    database: Database,
    settings: Settings,
    tenant: Tenant,
) -> None:
    """On the demo's pages, whose policy allows nothing but the snippet, its API and a style sheet."""
    port = free_port()
    link = await Sessions(keys.database, keys.settings).make_link(
        tenant, await person(keys, tenant, "anna", "member")
    )
    visitor, operator = [await context.new_page() for context in contexts]
    async with working(Platform(database, settings, tenant)):
        lines = await _on_the_site(server, await keys.user(tenant), f"http://127.0.0.1:{port}")
        assert "integrity=" in lines
        with demo_site(port, server.url, lines) as shop:
            await visitor.goto(shop)
            await visitor.locator("fleetprompt-chat button").first.click()
            thread = visitor.locator("fleetprompt-chat dialog")
            await thread.locator("textarea").fill("Do you ship to Iceland?")
            await thread.locator("textarea").press("Enter")
            await thread.locator("form[aria-label] .go").click()
            await expect(thread.locator(".me").last).to_contain_text("Iceland")
            await expect(thread.get_by_text("Sending", exact=True)).to_have_count(0)

            await operator.goto(f"{server.url}/console/link/{link}")
            await operator.get_by_role("button", name="Sign in").click()
            await operator.get_by_role("link", name="Inbox").click()
            await operator.get_by_role("link", name="Visitor").click()
            await expect(operator.get_by_role("log")).to_contain_text("Do you ship to Iceland?")
            await operator.get_by_label("Reply as").fill("Yes, on Mondays.")
            await operator.get_by_role("button", name="Send").click()
            await expect(thread.locator("[role=log]")).to_contain_text("Yes, on Mondays.")

            # The conversation goes on on the next page; the operator is told without doing anything.
            await visitor.goto(f"{shop}/delivery")
            await visitor.locator("fleetprompt-chat button").first.click()
            await expect(thread.locator("[role=log]")).to_contain_text("Yes, on Mondays.")
            await thread.locator("textarea").fill("Thank you!")
            await thread.locator("textarea").press("Enter")
            await expect(operator.get_by_role("log")).to_contain_text("Thank you!")
            await expect(operator.get_by_role("log")).not_to_contain_text("being sent")
    async with database.tenant(tenant.schema) as session:
        told = await session.scalars(
            text(
                "SELECT data ->> 'text' FROM signals WHERE type IN"
                " ('webchat.message.received', 'webchat.reply.sent') ORDER BY id"
            )
        )
        assert list(told) == ["Do you ship to Iceland?", "Yes, on Mondays.", "Thank you!"]
