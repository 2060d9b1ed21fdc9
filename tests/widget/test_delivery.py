"""Each message is stored once and shown once, whatever happens to network, tabs and server."""

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.doubles.http_server import Answer
from tests.doubles.webchat_api import WebchatApi
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
    sending,
)

pytestmark = pytest.mark.slow

Visit = Callable[..., Page]


def test_trap_01_lost_acknowledgements_store_a_message_once(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    api.tells = False  # nor does anything else say that it is stored
    api.drop_acknowledgements = 3
    open_chat(page)
    say(page, "Once")
    agree(page)
    eventually(lambda: len(api.sent) >= 2)
    expect(sending(page)).to_have_count(0)
    assert api.texts() == ["Once"]
    assert own(page) == ["Once"]


def test_trap_02_the_same_text_twice_is_two_messages(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page, "ok")
    say(page, "ok")
    say(page, "ok")
    expect(delivered(page)).to_have_count(3)
    assert api.texts() == ["ok"] * 3


def test_trap_03_a_message_that_the_server_will_not_take_stays_and_can_be_edited(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page, "first")
    api.fault("/messages", 409, "message-mismatch")
    say(page, "second")
    expect(dialog(page).get_by_text("Not sent")).to_be_visible()
    say(page, "third")
    expect(delivered(page)).to_have_count(2)
    field(page).fill("fourth")
    dialog(page).get_by_role("button", name="Edit").click()
    expect(field(page)).to_have_value("second\nfourth")
    expect(dialog(page).get_by_text("Not sent")).to_have_count(0)
    assert api.texts() == ["first", "third"]


def test_trap_05_two_tabs_that_come_back_send_each_message_once_and_in_order(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    one = visit()
    begin(one, "0")
    two = visit()
    open_chat(two)
    expect(delivered(two)).to_have_count(1)
    context.set_offline(True)
    for text in ("1", "2"):
        say(one, text)
    expect(sending(two)).to_have_count(2)
    say(two, "3")
    expect(note(two)).to_have_text("No connection. It is sent later.")
    context.set_offline(False)
    for page in (one, two):
        expect(delivered(page)).to_have_count(4)
        assert own(page) == ["0", "1", "2", "3"]
    assert api.texts() == ["0", "1", "2", "3"]


def test_trap_06_what_was_written_offline_survives_the_closed_page(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    page = visit()
    begin(page, "0")
    context.set_offline(True)
    say(page, "1")
    say(page, "2")
    expect(sending(page)).to_have_count(2)
    page.close()
    context.set_offline(False)
    visit()  # nobody opens the chat
    eventually(lambda: api.texts() == ["0", "1", "2"])


def test_trap_08_replies_while_the_history_is_read_are_shown_once_and_in_order(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page)
    page.goto("about:blank")
    api.reply(*map(str, range(205)))  # more than one answer holds
    back = visit()
    open_chat(back)
    for number in range(205, 220):
        api.reply(str(number))
    expect(lines(back)).to_have_count(222)
    assert bubbles(back)[2:] == [str(number) for number in range(220)]


def test_trap_11_a_token_that_ends_in_an_open_stream_is_renewed(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page)
    for renewals in range(3):
        api.reply(str(2 * renewals))
        # The stream that ended is no longer the one that is open.
        eventually(lambda: api.bootstraps == 1 + renewals and api.open_streams == 1)  # noqa: B023
        api.end_tokens()
        api.reply(str(2 * renewals + 1))
    expect(lines(page)).to_have_count(8)
    assert bubbles(page)[2:] == [str(number) for number in range(6)]
    eventually(lambda: api.bootstraps == 4)
    api.tokens.clear()  # and nobody said so
    say(page, "still here")
    expect(delivered(page)).to_have_count(2)


def test_trap_13_seven_tabs_have_one_stream(visit: Visit, api: WebchatApi) -> None:
    first = visit()
    begin(first)
    others = [visit() for _ in range(6)]
    open_chat(others[-1])
    expect(delivered(others[-1])).to_have_count(1)
    assert api.open_streams == 1
    say(others[-1], "and this")
    expect(delivered(first)).to_have_count(2)
    assert api.texts() == ["Do you ship to Iceland?", "and this"]


def test_trap_14_both_tabs_show_a_reply_and_15_the_other_takes_over(
    visit: Visit, api: WebchatApi
) -> None:
    leader = visit()
    begin(leader)
    follower = visit()
    open_chat(follower)
    expect(delivered(follower)).to_have_count(1)
    api.reply("to both")
    for page in (leader, follower):
        expect(dialog(page).get_by_text("to both")).to_be_visible()
    leader.close()
    api.reply("to who is left")
    expect(dialog(follower).get_by_text("to who is left")).to_be_visible()
    eventually(lambda: api.open_streams == 1)


def test_a_tab_that_was_open_before_consent_in_another_joins_the_conversation(
    visit: Visit, api: WebchatApi
) -> None:
    early = visit()
    open_chat(early)
    page = visit()
    begin(page, "from the second tab")
    expect(delivered(early)).to_have_count(1)
    say(early, "from the first")
    expect(delivered(page)).to_have_count(2)
    assert len(api.conversations) == 1


def test_trap_16_everything_works_on_a_page_that_came_over_plain_http(
    context: BrowserContext, shop: Shop, api: WebchatApi
) -> None:
    context.add_init_script(
        """let hidden = false;
        Object.defineProperty(document, "hidden", { get: () => hidden });
        window.look = (away) => {
          hidden = away;
          document.dispatchEvent(new Event("visibilitychange"));
        };"""
    )
    page, other = context.new_page(), context.new_page()
    page.goto(f"http://shop.test:{shop.port}/")
    missing = "[isSecureContext, crypto.randomUUID, crypto.subtle, navigator.locks]"
    assert page.evaluate(missing) == [False, None, None, None]
    begin(page)
    api.reply("Yes.")
    expect(dialog(page).get_by_text("Yes.")).to_be_visible()
    # Without locks the tab that is looked at has the stream, and tells the other.
    page.evaluate("look(true)")
    eventually(lambda: api.open_streams == 0)
    other.goto(f"http://shop.test:{shop.port}/")
    open_chat(other)
    eventually(lambda: api.open_streams == 1)
    api.reply("And soon.")
    for one in (page, other):
        expect(dialog(one).get_by_text("And soon.")).to_be_visible()
    other.evaluate("look(true)")
    page.evaluate("look(false)")
    eventually(lambda: api.open_streams == 1)
    say(other, "Thanks")
    for one in (page, other):
        expect(delivered(one)).to_have_count(2)
    assert api.texts() == ["Do you ship to Iceland?", "Thanks"]


def test_trap_17_denied_storage_leaves_a_chat_in_memory(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    context.add_init_script(
        "indexedDB.open = indexedDB.databases = indexedDB.deleteDatabase ="
        " () => { throw new DOMException('denied', 'SecurityError') }"
    )
    page = visit()
    begin(page, "first")
    api.reply("Hi")
    expect(lines(page)).to_have_count(3)
    say(page, "second")
    expect(delivered(page)).to_have_count(2)
    assert api.texts() == ["first", "second"]


def test_trap_32_a_page_that_comes_back_from_the_cache_is_live(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page)
    page.goto("about:blank")
    api.reply("meanwhile")
    page.go_back()
    open_if_closed(page)
    expect(dialog(page).get_by_text("meanwhile")).to_be_visible()
    api.reply("and now")
    expect(dialog(page).get_by_text("and now")).to_be_visible()


def open_if_closed(page: Page) -> None:
    if not dialog(page).is_visible():
        open_chat(page)


def test_trap_33_a_stream_without_a_sign_of_life_is_opened_again_where_it_stopped(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    context.clock.install()
    page = visit()
    begin(page)
    eventually(lambda: api.open_streams == 1)
    api.silent = True
    api.reply("into the void")
    api.silent = False
    page.clock.run_for(46_000)
    expect(dialog(page).get_by_text("into the void")).to_be_visible()
    events = [one for one in api.api_requests() if one.path.endswith("/events")]
    assert "1" in [one.headers["last-event-id"] for one in events[1:]]


def test_streams_that_break_lose_nothing(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page)
    for number in range(4):
        api.cut_streams()
        api.reply(str(number))
    expect(lines(page)).to_have_count(6)
    assert bubbles(page)[2:] == ["0", "1", "2", "3"]


def test_a_server_that_was_gone_is_found_again(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page, "first")
    api.refuse()
    api.cut_streams()
    say(page, "second")
    expect(note(page)).to_have_text("No connection. It is sent later.")
    api.start()
    api.reply("back again")
    expect(dialog(page).get_by_text("back again")).to_be_visible()
    expect(delivered(page)).to_have_count(2)
    assert api.texts() == ["first", "second"]


def test_trap_43_a_limit_delays_a_message_and_never_drops_it(visit: Visit, api: WebchatApi) -> None:
    page = visit()
    begin(page, "first")
    api.fault("/messages", 429, "rate-limited", retry=1)
    api.fault("/messages", 503, "overloaded", retry=1)
    began = time.monotonic()
    say(page, "second")
    say(page, "third")
    expect(delivered(page)).to_have_count(3)
    assert time.monotonic() - began >= 2
    assert api.sent == ["first", "second", "third"]


def test_trap_50_the_servers_order_counts_and_not_the_visitors_clock(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    context.add_init_script("Date.now = ((now) => () => now() + 86_400_000)(Date.now)")
    page = visit()
    begin(page, "first")
    api.reply("second")
    say(page, "third")
    expect(delivered(page)).to_have_count(2)
    page.reload()
    open_chat(page)
    expect(lines(page)).to_have_count(4)
    assert bubbles(page)[1:] == ["first", "second", "third"]


def test_trap_51_behind_a_proxy_that_holds_streams_back_the_chat_polls(
    visit: Visit, api: WebchatApi, context: BrowserContext
) -> None:
    context.clock.install()
    api.buffers_streams = True
    page = visit()
    begin(page)
    eventually(lambda: api.open_streams == 1)
    page.clock.run_for(3_100)
    eventually(lambda: any("wait" in one.query for one in api.api_requests()))
    api.reply("polled")
    expect(dialog(page).get_by_text("polled")).to_be_visible()
    api.close_conversation()
    expect(note(page)).to_have_text("This chat has ended.")


def test_work_that_is_asked_for_is_done(visit: Visit, api: WebchatApi) -> None:
    api.work_bits = 8
    page = visit()
    begin(page)
    assert api.texts() == ["Do you ship to Iceland?"]
    assert any("webchat-challenge" in one.headers for one in api.api_requests())


def test_trap_38_a_site_that_is_refused_says_so_and_keeps_the_text(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    for problem in ("origin-not-allowed", "site-disabled"):
        api.fault("/bootstrap", 403, problem)
    launcher(page).click()
    expect(note(page)).to_have_text("Chat is not available.")
    say(page, "Hello?")
    eventually(lambda: api.faults == [])
    expect(field(page)).to_have_value("Hello?")
    expect(note(page)).to_have_text("Chat is not available.")


def test_an_answer_that_is_no_answer_of_ours_counts_as_a_failure(
    visit: Visit, api: WebchatApi
) -> None:
    page = visit()
    begin(page, "first")
    api.faults.append(("/messages", Answer(502, b"<html>Bad gateway</html>")))
    say(page, "second")
    expect(delivered(page)).to_have_count(2)
    assert api.texts() == ["first", "second"]
