"""Pages with a chat widget in Chromium: what they load, whom they ask, how long they hold the main thread."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Response, sync_playwright

from tests.doubles.http_server import Answer, HttpServer, Request
from tests.doubles.webchat_api import TYPES

ROUNDS = 5
READY_MS = 60_000


@dataclass(frozen=True)
class Cost:
    """What a widget costs the page it is on."""

    main_thread: float
    """Milliseconds of the main thread's own processor time, the median of the rounds."""
    longest_task: float
    """Milliseconds of the longest task that the browser calls long (50 ms and more), the median; else 0."""
    script_bytes: int
    """Scripts as they were loaded, each compressed with gzip."""
    foreign: int
    """Requests to any host but those that are allowed; none was let through."""


class Folder(HttpServer):
    """Files of a folder, and at ``/`` a page."""

    def __init__(self, folder: Path, page: str = "") -> None:
        super().__init__()
        self.folder = folder
        self.page = page

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: Request, *_: object) -> Answer:
        if request.path == "/":
            text = f'<!doctype html><link rel="icon" href="data:,"><h1>Shop</h1>{self.page}'
            return Answer(200, text.encode(), {"Content-Type": TYPES[".html"]})
        path = self.folder / request.path.removeprefix("/")
        if not path.is_file():
            return Answer(404)
        return Answer(
            200, path.read_bytes(), {"Content-Type": TYPES.get(path.suffix, "text/plain")}
        )


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that finds no host but this machine."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            ],
        )
        yield launched
        launched.close()


def cost(browser: Browser, address: str, allowed: set[str], there: str) -> Cost:
    """Opens the page and waits until ``there`` holds on it, each round in a profile of its own."""
    visits = [_visit(browser, address, allowed, there) for _ in range(ROUNDS)]
    return Cost(
        main_thread=median(one.main_thread for one in visits),
        longest_task=median(one.longest_task for one in visits),
        script_bytes=visits[-1].script_bytes,
        foreign=max(one.foreign for one in visits),
    )


def _visit(browser: Browser, address: str, allowed: set[str], there: str) -> Cost:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(READY_MS)
    context.add_init_script(
        """window.longest = 0;
        new PerformanceObserver((list) => {
          for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
        }).observe({ type: "longtask", buffered: true });"""
    )
    own = ("data:", "blob:", *(f"{origin}/" for origin in allowed))
    page = context.new_page()
    addresses: list[str] = []
    scripts: list[Response] = []
    page.on("request", lambda one: addresses.append(one.url))
    page.on(
        "response",
        lambda one: scripts.append(one) if one.request.resource_type == "script" else None,
    )
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(address)
    page.wait_for_function(there, polling=100)
    metrics = session.send("Performance.getMetrics")["metrics"]
    [seconds] = [one["value"] for one in metrics if one["name"] == "TaskDuration"]
    seen = Cost(
        main_thread=seconds * 1_000,
        longest_task=page.evaluate("longest"),
        script_bytes=sum(len(gzip.compress(one.body(), 9)) for one in scripts),
        foreign=sum(not one.startswith(own) for one in addresses),
    )
    context.close()
    return seen
