"""The chat on other people's pages, for everybody's eyes, hands and ears."""

from collections.abc import Callable
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.doubles.webchat_api import SITE_KEY, WebchatApi
from tests.widget.shop import (
    Shop,
    agree,
    begin,
    bubbles,
    delivered,
    dialog,
    eventually,
    field,
    launcher,
    lines,
    note,
    open_chat,
    own,
    say,
)

pytestmark = pytest.mark.slow

Visit = Callable[..., Page]
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SIZES = {"wide": (1280, 800), "narrow": (375, 667)}


@pytest.fixture(params=list(SIZES.values()), ids=list(SIZES))
def sized(request: pytest.FixtureRequest, visit: Visit) -> Callable[..., Page]:
    def opened(path: str = "/") -> Page:
        page = visit(path)
        width, height = request.param
        page.set_viewport_size({"width": width, "height": height})
        return page

    return opened


def findings(page: Page, axe: str) -> list[str]:
    """What the accessibility checker finds; its source is evaluated, which no policy forbids."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe)
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in result["violations"]
        for node in one["nodes"]
    ]


def test_trap_21_axe_finds_nothing_in_any_state(
    sized: Visit, api: WebchatApi, axe: str, context: BrowserContext
) -> None:
    api.site |= {"prechat": {"name": "optional", "email": "required"}}
    api.site["hours"] = {"open": False, "text": "Back on Monday", "away": "Leave a message."}
    page = sized()

    def clean(state: str) -> None:
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert findings(page, axe) == [], (state, scheme)

    expect(launcher(page)).to_be_visible()
    clean("closed")
    open_chat(page)
    clean("empty")
    say(page, "Hello")
    expect(dialog(page).get_by_label("E-mail *")).to_be_visible()
    clean("consent and fields")
    dialog(page).get_by_label("E-mail *").fill("noor@example.org")
    agree(page)
    expect(delivered(page)).to_have_count(1)
    api.reply("See https://shop.example/help")
    expect(lines(page)).to_have_count(4)
    api.typing()
    expect(note(page)).to_have_text("Anna is typing …")
    clean("thread, and somebody types")
    api.fault("/messages", 422, "invalid")
    say(page, "Refused")
    expect(dialog(page).get_by_text("Not sent")).to_be_visible()
    clean("not sent")
    context.set_offline(True)
    say(page, "Later")
    expect(note(page)).to_have_text("No connection. It is sent later.")
    clean("offline")
    context.set_offline(False)
    expect(delivered(page)).to_have_count(2)
    dialog(page).get_by_role("button", name="Erase my data").click()
    clean("erase")
    api.close_conversation()
    expect(dialog(page).get_by_role("button", name="5", exact=True)).to_be_visible()
    clean("ended")


def test_trap_22_the_keyboard_alone_is_enough_on_a_wide_screen(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    expect(launcher(page)).to_be_visible()
    page.keyboard.press("Tab")
    expect(launcher(page)).to_be_focused()
    page.keyboard.press("Enter")
    expect(field(page)).to_be_focused()
    expect(lines(page)).to_have_count(1)
    page.keyboard.type("Hello")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")  # the focus is on "Agree"
    expect(delivered(page)).to_have_count(1)
    expect(field(page)).to_be_focused()
    assert launcher(page).get_attribute("aria-expanded") == "true"
    page.keyboard.press("Escape")
    expect(dialog(page)).not_to_be_visible()
    expect(launcher(page)).to_be_focused()
    assert launcher(page).get_attribute("aria-expanded") == "false"


def test_trap_22_on_a_small_screen_the_focus_stays_in_the_chat(
    visit: Visit, api: WebchatApi, shop: Shop
) -> None:
    shop.body = '<a href="#x">A link of the page</a>'
    page = visit()
    page.set_viewport_size({"width": 375, "height": 667})
    open_chat(page)
    box = dialog(page).bounding_box()
    assert box == {"x": 0, "y": 0, "width": 375, "height": 667}
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") in ("FLEETPROMPT-CHAT", "BODY")
    page.keyboard.press("Escape")
    expect(dialog(page)).not_to_be_visible()
    expect(launcher(page)).to_be_focused()


def test_a_long_notice_on_a_page_at_400_percent_can_be_scrolled_to_its_end(
    visit: Visit, api: WebchatApi
) -> None:
    """WCAG 2.2 §1.4.10: what is 1280 px wide is 320 px then."""
    api.site["consent"] = {**api.site["consent"], "text": "We store what you write. " * 80}
    page = visit()
    page.set_viewport_size({"width": 320, "height": 256})
    open_chat(page)
    say(page, "Hello")
    yes = dialog(page).get_by_role("button", name="Agree")
    expect(yes).to_be_in_viewport()
    page.mouse.move(160, 128)
    page.mouse.wheel(0, -9_999)
    expect(dialog(page).get_by_role("button", name="Close")).to_be_in_viewport()
    expect(yes).not_to_be_in_viewport()
    page.mouse.wheel(0, 9_999)
    expect(dialog(page).get_by_role("button", name="Erase my data")).to_be_in_viewport()


def test_trap_23_history_is_not_read_out_and_what_comes_after_it_is(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    page = visit()
    begin(page)
    api.reply("One")
    expect(lines(page)).to_have_count(3)
    page.goto("about:blank")
    context.add_init_script(
        """const insert = Node.prototype.insertBefore;
        window.announced = [];
        Node.prototype.insertBefore = function (line, before) {
          if (this.ariaLive === "polite") window.announced.push(line.textContent);
          return insert.call(this, line, before);
        };"""
    )
    back = visit()
    open_chat(back)
    expect(lines(back)).to_have_count(3)
    assert back.evaluate("window.announced") == []
    api.reply("Two")
    expect(lines(back)).to_have_count(4)
    [announced] = back.evaluate("window.announced")
    assert announced.startswith("TwoAnna")


def test_trap_24_enter_that_ends_the_composing_of_a_word_sends_nothing(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    open_chat(page)
    field(page).fill("こんに")
    # Safari says that the composing has ended before it tells of the key that ended it.
    for composing in (True, False):
        pressed = {"key": "Enter", "keyCode": 229, "isComposing": composing, "bubbles": True}
        field(page).evaluate(
            "(field, init) => field.dispatchEvent(new KeyboardEvent('keydown', init))", pressed
        )
    expect(field(page)).to_have_value("こんに")
    expect(dialog(page).get_by_role("button", name="Agree")).to_have_count(0)
    field(page).press("Shift+Enter")
    assert "\n" in field(page).input_value()


def test_trap_28_the_pages_style_does_not_leak_in(
    visit: Visit, api: WebchatApi, shop: Shop
) -> None:
    plain = visit()
    open_chat(plain)
    measured = "one => JSON.stringify([...one.getRootNode().querySelectorAll('*')].map(it => {\
        const {width, height} = it.getBoundingClientRect(); const {color, fontSize} = \
        getComputedStyle(it); return [it.tagName, width, height, color, fontSize]}))"
    before = dialog(plain).evaluate(measured)
    shop.policy += f"; style-src {shop.origin} 'unsafe-inline'"
    shop.head = (
        "<style>*{all:unset!important;display:none!important;color:red!important}"
        ":root{font-size:40px;display:block!important}div,button,dialog{display:none!important;"
        "margin:99px!important}fleetprompt-chat{display:none!important;transform:scale(.1)}</style>"
    )
    hostile = visit()
    open_chat(hostile)
    assert dialog(hostile).evaluate(measured) == before


def test_trap_29_no_layer_of_the_page_covers_the_button(
    visit: Visit, api: WebchatApi, shop: Shop
) -> None:
    shop.policy += "; style-src 'unsafe-inline'"
    shop.head = (
        "<style>body{transform:scale(.5);contain:strict;height:50px;overflow:hidden}"
        "main{position:fixed;inset:0;z-index:2147483647;background:red}</style>"
    )
    page = visit()
    open_chat(page)
    expect(field(page)).to_be_focused()
    box = launcher(page).bounding_box()
    assert box == {"x": 1280 - 76, "y": 800 - 76, "width": 56, "height": 56}


def test_trap_30_the_chat_goes_on_when_the_page_is_replaced(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page)
    field(page).fill("half a sen")
    page.evaluate(
        "document.documentElement.replaceChild(document.createElement('body'), document.body)"
    )
    expect(field(page)).to_have_value("half a sen")
    api.reply("Still here")
    expect(dialog(page).get_by_text("Still here")).to_be_visible()
    page.evaluate("document.documentElement.replaceChildren(document.createElement('body'))")
    expect(launcher(page)).to_be_visible()
    assert page.locator("fleetprompt-chat").count() == 1
    expect(field(page)).to_have_value("half a sen")


def test_trap_31_the_snippet_pasted_twice_is_one_chat_and_two_sites_are_two(
    visit: Visit, api: WebchatApi, shop: Shop
) -> None:
    shop.snippets = 2
    page = visit()
    begin(page)
    assert page.locator("fleetprompt-chat").count() == 1
    assert api.texts() == ["Do you ship to Iceland?"]
    shop.body += shop.snippet.replace(SITE_KEY, "fp_pub_another")
    page.reload()
    expect(page.locator("fleetprompt-chat")).to_have_count(2)
    keys = page.locator("fleetprompt-chat").evaluate_all("all => all.map(one => one.id)")
    assert set(keys) == {f"fleetprompt-chat{key}" for key in (SITE_KEY, "fp_pub_another")}


def test_only_the_pages_language_is_loaded(visit: Visit, api: WebchatApi, shop: Shop) -> None:
    page = visit("/?lang=xx")
    for language, write, direction in (
        ("xx", "Write a message", "ltr"),
        ("de-AT", "Nachricht schreiben", "ltr"),
        ("fr", "Écrire un message", "ltr"),
        ("es", "Escriba un mensaje", "ltr"),
        ("ar", "اكتب رسالة", "rtl"),
        ("ja", "メッセージを入力", "ltr"),
    ):
        api.requests.clear()
        page.goto(f"{shop.origin}/?lang={language}")
        open_chat(page)
        assert field(page).get_attribute("placeholder") == write
        assert dialog(page).locator("[dir]").first.get_attribute("dir") == direction
        [file] = [one.path for one in api.requests if one.path.startswith("/widget/v1/chat.")]
        bootstrap = next(one for one in api.api_requests() if one.path.endswith("/bootstrap"))
        assert bootstrap.json()["language"] == file.split(".")[1]


def test_a_page_from_right_to_left_has_everything_on_the_other_side(
    visit: Visit, api: WebchatApi, axe: str
) -> None:
    page = visit("/?lang=ar&dir=rtl")
    assert left(launcher(page)) == 20
    begin(page, "مرحبا")
    eventually(lambda: api.texts() == ["مرحبا"])
    api.reply("أهلا")
    expect(lines(page)).to_have_count(3)
    for width, height in SIZES.values():
        page.keyboard.press("Escape")
        page.set_viewport_size({"width": width, "height": height})
        launcher(page).click()
        expect(field(page)).to_be_focused()
        assert left(dialog(page)) == (20 if width > 480 else 0)
        assert left(delivered(page).locator("p")) < left(lines(page).last.locator("p"))
        assert findings(page, axe) == []


def left(one: Locator) -> float:
    box = one.bounding_box()
    assert box is not None
    return box["x"]


def test_the_sites_colours_side_and_scheme_are_used(visit: Visit, api: WebchatApi) -> None:
    theme = {"accent": "#ffd54a", "on_accent": "#1a1a1a", "scheme": "dark", "side": "start"}
    api.site["theme"] = theme
    page = visit()
    open_chat(page)
    colour = "one => getComputedStyle(one).backgroundColor"
    assert launcher(page).evaluate(colour) == "rgb(255, 213, 74)"
    assert dialog(page).evaluate(colour) != "rgb(255, 255, 255)"
    button = launcher(page).bounding_box()
    assert button is not None
    assert button["x"] == 20


def test_the_snippet_says_how_the_button_looks_and_where_the_platform_is(
    visit: Visit, api: WebchatApi, shop: Shop
) -> None:
    shop.scripts = api.origin.replace("127.0.0.1", "localhost")
    shop.attributes = (
        f'data-label="Frag uns" data-side="start" data-lang="de" data-accent="#ffd54a" '
        f'data-on="#1a1a1a" data-api="{api.origin}"'
    )
    page = visit()
    expect(launcher(page)).to_have_accessible_name("Frag uns")
    assert left(launcher(page)) == 20
    colours = "one => [getComputedStyle(one).backgroundColor, getComputedStyle(one).color]"
    assert launcher(page).evaluate(colours) == ["rgb(255, 213, 74)", "rgb(26, 26, 26)"]
    open_chat(page)
    assert field(page).get_attribute("placeholder") == "Nachricht schreiben"


def test_without_script_and_without_the_chat_there_is_a_plain_page(
    visit: Visit, api: WebchatApi, shop: Shop, context: BrowserContext, built: object
) -> None:
    assert f'<noscript><a href="{api.origin}/chat/' in shop.snippet
    page = context.new_page()
    page.route("**/widget/v1/chat.*", lambda route: route.abort())
    page.goto(shop.origin)
    with context.expect_page() as opened:
        launcher(page).click()
    opened.value.wait_for_load_state()
    assert opened.value.url.startswith(f"{api.origin}/chat/fp_pub_")
    opened.value.close()


def test_long_words_and_line_ends_stay_in_their_bubble(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page, "a" * 400)
    api.reply("one\ntwo " + "b" * 400)
    expect(lines(page)).to_have_count(3)
    assert "one\ntwo" in bubbles(page)[-1]
    assert own(page) == ["a" * 400]
    log = dialog(page).locator("[role=log]")
    assert log.evaluate("one => one.scrollWidth <= one.clientWidth")
