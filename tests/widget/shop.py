"""A shop's website under the strictest policy a site can have, and what a visitor does on it."""

import asyncio
import re
import time
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.doubles.http_server import Answer, HttpServer, Request
from tests.doubles.webchat_api import SITE_KEY, TYPES

NONCE = "r4nd0m"


class Shop(HttpServer):
    """Any path is a page; query parameters change it: `lang`, `dir`, `head`, `snippet`."""

    def __init__(self, api: str) -> None:
        super().__init__()
        self.api = api
        self.head = ""
        self.attributes = ""
        self.scripts = api
        """Where the loader is from."""
        self.body = "<h1>Nordwind</h1><p>Outdoor goods since 1998.</p>"
        self.snippets = 1
        self.policy = (
            f"default-src 'none'; script-src 'nonce-{NONCE}'; connect-src {api}; "
            "require-trusted-types-for 'script'; trusted-types 'none'"
        )

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def snippet(self) -> str:
        return (
            f'<script async nonce="{NONCE}" src="{self.scripts}/widget/v1/loader.js" '
            f'data-site="{SITE_KEY}" {self.attributes}></script>'
            f'<noscript><a href="{self.api}/chat/{SITE_KEY}">Chat with us</a></noscript>'
        )

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> Answer | None:
        language = request.query.get("lang", "en")
        direction = request.query.get("dir", "ltr")
        page = (
            f'<!doctype html><html lang="{language}" dir="{direction}"><head><title>Shop</title>'
            f'<link rel="icon" href="data:,">'
            f'<meta name="viewport" content="width=device-width">{self.head}</head>'
            f"<body><main>{self.body}</main>{self.snippet * self.snippets}</body></html>"
        )
        headers = {"Content-Type": TYPES[".html"]}
        if self.policy:
            headers["Content-Security-Policy"] = self.policy + "; img-src data:"
        return Answer(200, page.encode(), headers)


def launcher(page: Page) -> Locator:
    return page.locator("fleetprompt-chat > button, fleetprompt-chat button").first


def dialog(page: Page) -> Locator:
    return page.locator("fleetprompt-chat dialog")


def field(page: Page) -> Locator:
    return dialog(page).locator("textarea")


def lines(page: Page) -> Locator:
    return dialog(page).locator("[role=log] > div")


def bubbles(page: Page) -> list[str]:
    """What is in the thread, the greeting included."""
    return dialog(page).locator("[role=log] > div > p").all_inner_texts()


def own(page: Page) -> list[str]:
    """What the visitor said, as it is on the screen."""
    return dialog(page).locator("[role=log] > .me > p").all_inner_texts()


def note(page: Page) -> Locator:
    return dialog(page).locator("[role=status]")


def open_chat(page: Page) -> None:
    launcher(page).click()
    expect(lines(page).first).to_be_visible()


def say(page: Page, text: str) -> None:
    field(page).fill(text)
    field(page).press("Enter")


def agree(page: Page) -> None:
    dialog(page).locator("form[aria-label] .go").click()


def begin(page: Page, text: str = "Do you ship to Iceland?") -> None:
    """Opens the chat, writes, agrees, and waits until it is stored."""
    open_chat(page)
    say(page, text)
    agree(page)
    expect(delivered(page).last).to_be_visible()
    expect(sending(page)).to_have_count(0)


def delivered(page: Page) -> Locator:
    """The visitor's messages that the server has."""
    return (
        dialog(page).locator("[role=log] > .me").filter(has_not_text=re.compile("Sending|Not sent"))
    )


def sending(page: Page) -> Locator:
    return dialog(page).get_by_text("Sending", exact=True)


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for what the server sees."""
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.05)
