"""A whole conversation in Chromium, under ``default-src 'none'``, Trusted Types and a nonce.

The fixture ``context`` fails every one of these tests for a single violation of the policy.
"""

from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.doubles.webchat_api import WebchatApi
from tests.widget.shop import (
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

STORED = """async () => [
  document.cookie.length, localStorage.length, sessionStorage.length,
  (await indexedDB.databases()).length, (await caches?.keys?.() ?? []).length]"""
SEEN = """() => new Promise(resolve => {
  const opening = indexedDB.open(document.querySelector("fleetprompt-chat").id);
  opening.onsuccess = () => {
    const reading = opening.result.transaction("kept").objectStore("kept").get(0);
    reading.onsuccess = () => { opening.result.close(); resolve(reading.result.seen.seq); };
  };
})"""
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


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
    expect(lines(page).last).to_contain_text("Anna")
    expect(note(page)).to_be_empty()
    say(page, "Thanks!")
    expect(field(page)).to_have_value("")
    expect(delivered(page)).to_have_count(2)
    assert own(page) == ["Do you ship to Iceland?", "Thanks!"]
    assert bubbles(page)[0] == "Hello! How can we help you today?"


def test_trap_26_a_visitor_who_does_not_ask_costs_one_request_and_nothing_else(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    expect(launcher(page)).to_be_visible()
    page.evaluate("indexedDB.databases()")  # what the loader asked before is answered before
    assert [one.path for one in api.requests] == ["/widget/v1/loader.js"]
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    begin(page)
    assert hosts == {api.origin.removeprefix("http://")}


def test_trap_12_no_token_and_no_secret_is_in_any_address(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page)
    api.reply("Yes.")
    expect(lines(page)).to_have_count(3)
    page.reload()
    open_chat(page)
    secrets = {*api.tokens, *(visitor for visitor, _, _ in api.tokens.values())}
    assert len(secrets) >= 3
    assert not any(secret in one.target for one in api.requests for secret in secrets)
    events = [one for one in api.api_requests() if one.path.endswith("/events")]
    assert all(one.headers["authorization"].startswith("Bearer ") for one in events)


def test_trap_18_nothing_is_stored_before_consent(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    assert page.evaluate(STORED) == [0, 0, 0, 0, 0]
    open_chat(page)
    say(page, "Hello?")
    expect(dialog(page).get_by_role("button", name="Agree")).to_be_focused()
    assert page.evaluate(STORED) == [0, 0, 0, 0, 0]
    dialog(page).get_by_role("button", name="Cancel").click()
    expect(field(page)).to_have_value("Hello?")
    assert page.evaluate(STORED) == [0, 0, 0, 0, 0]
    assert api.conversations == {}
    field(page).press("Enter")
    agree(page)
    expect(delivered(page)).to_have_count(1)
    assert page.evaluate(STORED) == [0, 0, 0, 1, 0]
    assert api.only().consent == "1"


def test_trap_19_who_agreed_is_not_asked_again(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page, "first")
    page.reload()
    open_chat(page)
    say(page, "second")
    expect(delivered(page)).to_have_count(2)
    expect(dialog(page).get_by_role("button", name="Agree")).to_have_count(0)
    assert api.texts() == ["first", "second"]
    assert len(api.conversations) == 1


def test_trap_20_a_new_notice_is_asked_about_and_the_text_stays(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page, "first")
    page.context.set_offline(True)
    say(page, "second")
    say(page, "third")
    api.site["consent"] = {**api.site["consent"], "version": "2", "text": "We also sell boats."}
    page.context.set_offline(False)
    expect(dialog(page).get_by_text("We also sell boats.")).to_be_visible()
    dialog(page).get_by_role("button", name="Cancel").click()
    expect(field(page)).to_have_value("second\nthird")
    eventually(lambda: own(page) == ["first"])
    assert api.texts() == ["first"]
    field(page).press("Enter")
    agree(page)
    eventually(lambda: api.texts() == ["first", "second\nthird"])
    assert api.only().consent == "2"


def test_trap_45_markup_is_shown_as_text_everywhere(visit: Visit, api: WebchatApi) -> None:
    away = f"{HOSTILE} away"
    notice = {**api.site["consent"], "text": f"{HOSTILE} consent"}
    api.site |= {"title": f"{HOSTILE} title", "greeting": f"{HOSTILE} greeting", "consent": notice}
    api.site["hours"] = {"open": False, "text": f"{HOSTILE} hours", "away": away}
    page = visit()
    page.on("dialog", lambda shown: pytest.fail("a script ran"))
    open_chat(page)
    shown = ["title", "greeting", "hours", "away"]
    say(page, f"{HOSTILE} own")
    expect(dialog(page).get_by_text(f"{HOSTILE} consent")).to_be_visible()
    for where in shown:
        expect(dialog(page).get_by_text(f"{HOSTILE} {where}").first).to_be_visible()
    agree(page)
    expect(delivered(page)).to_have_count(1)
    api.reply(f"{HOSTILE} reply", author=f"{HOSTILE} author")
    for where in ("own", "reply", "author"):
        expect(dialog(page).get_by_text(f"{HOSTILE} {where}").first).to_be_visible()
    assert page.locator("fleetprompt-chat img, fleetprompt-chat script").count() == 0


def test_trap_45_only_addresses_of_the_web_become_links(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page)
    api.reply("javascript:alert(1) data:text/html,x https://a.example/x?y=1, end")
    expect(lines(page)).to_have_count(3)
    links = lines(page).get_by_role("link")
    assert links.evaluate_all("all => all.map(one => one.href)") == ["https://a.example/x?y=1"]
    assert links.first.get_attribute("rel") == "noreferrer nofollow"


def test_the_end_is_told_and_rated_and_writing_begins_anew(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page, "first")
    dialog(page).get_by_role("button", name="End chat").click()
    expect(note(page)).to_have_text("This chat has ended.")
    dialog(page).get_by_role("button", name="4", exact=True).click()
    expect(note(page)).to_have_text("Thank you!")
    closed = api.only()
    assert (closed.status, closed.rating) == ("closed", 4)
    page.reload()
    open_chat(page)
    expect(note(page)).to_have_text("This chat has ended.")
    expect(delivered(page)).to_have_count(1)
    expect(dialog(page).get_by_role("button", name="4", exact=True)).to_have_count(0)
    say(page, "second")
    expect(dialog(page).get_by_role("button", name="End chat")).to_be_visible()
    eventually(lambda: api.texts() == ["first", "second"])
    assert len(api.conversations) == 2
    assert own(page)[-1] == "second"


def test_a_message_to_a_conversation_that_was_closed_meanwhile_goes_to_a_new_one_once(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page, "first")
    api.only().status = "closed"  # and nobody said so
    say(page, "second")
    expect(delivered(page)).to_have_count(2)
    assert api.texts() == ["first", "second"]
    assert len(api.conversations) == 2


def test_trap_56_the_visitor_erases_everything(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page, "my secret")
    other = visit()
    open_chat(other)
    expect(delivered(other)).to_have_count(1)
    dialog(page).get_by_role("button", name="Erase my data").click()
    dialog(page).locator("form[aria-label]").get_by_role("button", name="Erase my data").click()
    for one in (page, other):
        expect(note(one)).to_have_text("Your data has been erased.")
        assert own(one) == []
    eventually(lambda: page.evaluate(STORED) == [0, 0, 0, 0, 0])
    assert api.texts() == [None]
    say(page, "again")
    agree(page)
    expect(delivered(page)).to_have_count(1)
    assert len({one.visitor for one in api.conversations.values()}) == 2


def test_the_visitor_is_asked_first_for_what_the_site_wants_to_know(
    visit: Visit, api: WebchatApi
) -> None:
    api.site["prechat"] = {"name": "optional", "email": "required"}
    page = visit()
    open_chat(page)
    say(page, "Hello")
    agree(page)
    expect(dialog(page).get_by_label("E-mail *")).to_be_visible()  # required, and still empty
    dialog(page).get_by_label("E-mail *").fill("noor@example.org")
    agree(page)
    expect(delivered(page)).to_have_count(1)
    assert api.only().contact == {"email": "noor@example.org"}


def test_an_address_can_be_left_after_the_first_message(visit: Visit, api: WebchatApi) -> None:
    api.site |= {"ask_contact": True, "consent": None}
    page = visit()
    open_chat(page)
    say(page, "Hello")
    expect(dialog(page).get_by_text("Where can we reach you?")).to_be_visible()
    expect(field(page)).to_be_focused()
    dialog(page).get_by_label("E-mail").fill("noor@example.org")
    dialog(page).get_by_label("E-mail").press("Enter")
    expect(note(page)).to_have_text("Thank you!")
    eventually(lambda: api.only().contact == {"email": "noor@example.org"})


def test_outside_business_hours_the_visitor_is_told(visit: Visit, api: WebchatApi) -> None:
    api.site["hours"] = {"open": False, "text": "Back on Monday", "away": "Leave a message."}
    page = visit()
    open_chat(page)
    expect(dialog(page).get_by_text("Back on Monday")).to_be_visible()
    assert bubbles(page)[-1] == "Leave a message."


def test_the_page_can_say_who_the_visitor_is_before_and_after_the_chat_is_there(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    page.evaluate("FleetPromptChat.push(['identify', 'signed'])")
    begin(page)
    assert api.only().identity == "signed"
    page.evaluate("FleetPromptChat.push(['identify', 'signed-later'])")
    eventually(lambda: api.only().identity == "signed-later")


def test_trap_57_an_identity_that_does_not_hold_keeps_neither_message_nor_address_back(
    visit: Visit, api: WebchatApi
) -> None:
    api.site["prechat"] = {"name": "off", "email": "optional"}
    page = visit()
    open_chat(page)
    say(page, "Hello")
    dialog(page).get_by_label("E-mail").fill("noor@example.org")
    page.evaluate("FleetPromptChat.push(['identify', 'expired'])")
    agree(page)
    expect(delivered(page)).to_have_count(1)
    expect(note(page)).to_be_empty()
    assert api.texts() == ["Hello"]
    assert (api.only().identity, api.only().contact) == (None, {"email": "noor@example.org"})


def test_an_address_that_the_server_will_not_take_is_said_so_and_the_message_goes(
    visit: Visit, api: WebchatApi
) -> None:
    api.site["prechat"] = {"name": "off", "email": "optional"}
    page = visit()
    open_chat(page)
    say(page, "Hello")
    dialog(page).get_by_label("E-mail").fill("noor@example.org")
    api.fault("/sessions", 422, "invalid")
    agree(page)
    expect(delivered(page)).to_have_count(1)
    expect(note(page)).to_have_text("Please try again.")
    assert api.only().contact == {}


def test_the_page_opens_closes_resets_and_hears_what_happens(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    page.evaluate(
        "['open', 'close', 'message', 'consent', 'end', 'error'].forEach(name =>"
        " document.addEventListener('chat-' + name, ({detail}) =>"
        " (window.heard ??= []).push(detail?.text ?? detail?.problem ?? name)))"
    )
    page.evaluate("FleetPromptChat.push(['identify', 'expired'])")
    page.evaluate("FleetPromptChat.push(['open'])")
    expect(field(page)).to_be_focused()
    say(page, "Hello")
    agree(page)
    expect(delivered(page)).to_have_count(1)
    api.reply("Hi")
    expect(lines(page)).to_have_count(3)
    api.close_conversation()
    expect(note(page)).to_have_text("This chat has ended.")
    page.evaluate("FleetPromptChat.push(['close'])")
    expect(dialog(page)).not_to_be_visible()
    told = ["open", "consent", "identity-expired", "Hi", "end", "close"]
    eventually(lambda: page.evaluate("window.heard") == told)
    page.evaluate("FleetPromptChat.push(['reset'])")
    eventually(lambda: page.evaluate(STORED) == [0, 0, 0, 0, 0])
    assert own(page) == []


def test_who_is_forgotten_while_the_server_still_answers_does_not_come_back(
    visit: Visit, api: WebchatApi
) -> None:
    begin(visit(), "mine alone")
    asked, api.delay = api.bootstraps, 1.0
    next_one = visit()
    eventually(lambda: sum(one.path.endswith("bootstrap") for one in api.requests) > asked + 1)
    next_one.evaluate("FleetPromptChat.push(['reset'])")
    begin(next_one, "somebody else's")
    assert own(next_one) == ["somebody else's"]
    assert len({one.visitor for one in api.conversations.values()}) == 2


def test_what_came_in_while_the_visitor_was_away_is_counted_on_the_button(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page)
    page.goto("about:blank")
    api.reply("One", "Two")
    back = visit()
    expect(launcher(back)).to_have_accessible_name("Chat (2)")
    open_chat(back)
    expect(launcher(back)).to_have_accessible_name("Chat")
    eventually(lambda: back.evaluate(SEEN) == 3)
    asked = api.bootstraps
    back.reload()
    eventually(lambda: api.bootstraps > asked)
    expect(lines(back)).to_have_count(4)
    expect(launcher(back)).to_have_accessible_name("Chat")


def test_that_the_visitor_types_is_told_at_most_every_three_seconds(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    context.clock.install()
    page = visit()
    begin(page)
    field(page).press_sequentially("a long question")
    eventually(lambda: len(api.typed) == 1)
    page.clock.run_for(3_100)
    field(page).press_sequentially(" goes on")
    eventually(lambda: len(api.typed) == 2)
