"""The widget as it is built, a shop that embeds it under the strictest policy, and a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.doubles.webchat_api import WebchatApi
from tests.widget.checkout import checkout, run
from tests.widget.shop import Shop

CHROMIUM = "/usr/bin/chromium"
PATIENCE = 20_000
"""Milliseconds until something that is waited for counts as not coming, on a busy machine too."""

# Waits after a failure are the shortest that they may be: `backoff` in widget/src/waiting.ts.
IMPATIENT = "Math.random = () => 0.05;"
RECORD_VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  window.violations.push(`${violatedDirective} ${blockedURI}`));
"""


@pytest.fixture(scope="session")
def widget(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the locked packages installed."""
    return checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def build_report(widget: Path) -> str:
    """What the build of `built` said."""
    return run(widget, "npm", "run", "build")


@pytest.fixture(scope="session")
def built(widget: Path, build_report: str) -> Path:
    """The widget's files as the API serves them."""
    return widget / "dist"


@pytest.fixture(scope="session")
def axe(widget: Path) -> str:
    """The accessibility checker's source."""
    return (widget / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP shop.test 127.0.0.1"],
        )
        yield launched
        launched.close()


@pytest.fixture
def api(built: Path) -> Iterator[WebchatApi]:
    server = WebchatApi(built)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def shop(api: WebchatApi) -> Iterator[Shop]:
    server = Shop(api.origin)
    server.start()
    api.origins |= {server.origin, f"http://shop.test:{server.port}"}
    yield server
    server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser's profile; at its end no page may have broken the shop's policy."""
    made = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    made.set_default_timeout(PATIENCE)
    made.add_init_script(IMPATIENT + RECORD_VIOLATIONS)
    errors: list[str] = []
    made.on("weberror", lambda error: errors.append(str(error.error)))
    yield made
    violations = [one for page in made.pages for one in page.evaluate("window.violations")]
    made.close()
    assert violations == []
    assert errors == []


@pytest.fixture
def visit(context: BrowserContext, shop: Shop) -> Callable[..., Page]:
    """Opens a page of the shop in a tab of its own."""

    def opened(path: str = "/") -> Page:
        page = context.new_page()
        page.goto(shop.origin + path)
        return page

    return opened
