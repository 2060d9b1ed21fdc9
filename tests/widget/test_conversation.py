"""A whole conversation in Chromium, under ``default-src 'none'``, Trusted Types and a nonce."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.doubles.webchat_api import WebchatApi
from tests.widget.shop import begin, bubbles, dialog, field, note, own, say

Visit = Callable[..., Page]


def test_trap_25_a_whole_conversation_under_the_strictest_policy(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page)
    assert api.texts() == ["Do you ship to Iceland?"]
    api.typing()
    expect(note(page)).to_have_text("Anna is typing …")
    api.reply("Yes, within a week: https://shop.example/shipping.")
    expect(dialog(page).get_by_role("link", name="https://shop.example/shipping")).to_be_visible()
    expect(note(page)).to_be_empty()
    say(page, "Thanks!")
    expect(field(page)).to_have_value("")
    page.wait_for_timeout(300)
    assert own(page) == ["Do you ship to Iceland?", "Thanks!"]
    assert bubbles(page)[0] == "Hello! How can we help you today?"
