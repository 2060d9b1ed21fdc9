"""How values read on a page."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from fleetprompt_api.console import wording
from fleetprompt_api.console.guard import own_page
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@given(st.text())
def test_shown_text_holds_no_markup_of_its_author_and_nothing_that_hides(text: str) -> None:
    shown = wording.shown(text)
    bare = str(shown).replace('<span class="hidden-sign" title="', "").replace("</span>", "")
    assert "<" not in bare
    hiding = {
        *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u200e\u200f\x00\x1b\u3164"
    }
    assert not hiding & set(shown)


def test_shown_text_keeps_what_people_write() -> None:
    text = "Grüße, 日本語, العربية – “ok” 👍\n\tline\r\nnext"
    assert wording.shown(text) == text.replace("\r\n", "\n")
    assert wording.shown("a & b < c") == "a &amp; b &lt; c"
    assert 'title="right-to-left override">U+202E<' in wording.shown("exe.\u202egpj")


def test_what_is_said_keeps_the_spelling_of_emoji_and_scripts_and_nothing_else_that_hides() -> None:
    text = "👩\u200d💻 می\u200cخواهم (\u200fשלום)"
    assert wording.said(text) == text
    assert "\u200d" not in wording.shown(text)
    assert "U+202E" in wording.said("exe.\u202egpj")
    assert "U+E0041" in wording.said("pay \U000e0041")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3_600, "1 h"),
        (3_660, "1 h 1 min"),
        (86_400 + 60, "1 d"),
        (3 * 86_400 - 61, "2 d 23 h"),
        (-5, "0 s"),
    ],
)
def test_spans_are_told_in_their_two_largest_units(seconds: int, words: str) -> None:
    assert wording.span(timedelta(seconds=seconds)).replace("\u00a0", " ") == words


@pytest.mark.parametrize(("seconds", "words"), [(0.0964, "96 ms"), (1.2, "1 s"), (61, "1 min")])
def test_quick_work_took_milliseconds_and_not_nothing(seconds: float, words: str) -> None:
    assert wording.took(timedelta(seconds=seconds)).replace("\u00a0", " ") == words


def test_times_are_told_in_utc_to_people_and_programs() -> None:
    told = wording.when(datetime(2026, 3, 2, 1, 5, 9, tzinfo=timezone(timedelta(hours=9))))
    assert 'datetime="2026-03-01T16:05:09.000Z"' in told
    assert ">01 Mar 2026, 16:05 UTC<" in told
    assert wording.when(None, "<never>") == "&lt;never&gt;"
    assert wording.until(NOW + timedelta(minutes=5), NOW) == "in 5\u00a0min"
    assert wording.until(NOW - timedelta(minutes=5), NOW) == "5\u00a0min ago"


@given(st.text(min_size=1))
def test_a_timelines_address_is_one_of_ours_whatever_the_id(correlation_id: str) -> None:
    if any(0xD800 <= ord(sign) <= 0xDFFF for sign in correlation_id):
        return
    address = wording.timeline_page(correlation_id)
    assert own_page(address) == address
    path = address.removeprefix("/console/timeline")
    assert path[0] in "/?"
    assert "/" not in path[1:]
    assert path[1:] not in (".", "..")
