"""Hostile text stays text: no ping, no rewriting, no broken table (traps 14 and 15)."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fleetprompt.outbound.transports.mattermost import code_span, plain, table_cell
from tests.doubles.mattermost import find_mentions, rewrite

USERS = {"abc123": "ann", "def456": "hook-owner"}

_PIECES = [
    "@channel", "@all", "_@here_", "x.@ALL", "<!here>", "<!channel>", "<@abc123>", "<a|b>",
    "Map<K|V>", "`", "``", "```", "|", "\\", "\\|", "\n", "\n\n", "\t", "\r", "\u2028", "\x00",
    "\u202e", "\u200b", "&#64;", "&lt;", "&", "@", "@ann", "<", ">", "!", "here", "~town-square",
    "![x](https://example.org/p.png)", "[a](javascript:x)", "https://example.org", "www.example.org",
    "# ", "- ", "1. ", "> ", "    ", "---", "===", "$x$", ":smile:", "日本", "🦊", "\ud800", "é",
]  # fmt: skip
hostile = st.lists(st.sampled_from(_PIECES) | st.text(max_size=5), max_size=12).map("".join)


def assert_harmless(message: str) -> None:
    for generation in ("old", "new"):
        assert rewrite(message, USERS, generation) == message
    mentions = find_mentions([message], USERS.values())
    assert (mentions.pings, mentions.possible) == ([], ())
    message.encode()


@settings(deadline=None)
@given(hostile, hostile, hostile)
def test_no_rewriting_and_no_mention_in_any_place(one: str, two: str, three: str) -> None:
    for make in (code_span, plain, table_cell):
        first, second, third = make(one), make(two), make(three)
        assert "\n" not in first
        assert_harmless(first)
        assert_harmless(f"{first} and {second}")
        assert_harmless(f"- {first}\n- {second}\n> {third}")
        assert_harmless(f"| a | b |\n|---|---|\n| {first} | {second} |\n| 1 | {third} |\n")
        assert_harmless(f"**{first}** [run](https://example.org/runs/1) _{second}_")


@settings(deadline=None)
@given(st.lists(st.tuples(hostile, hostile), min_size=1, max_size=4))
def test_the_columns_of_a_table_are_constant(rows: list[tuple[str, str]]) -> None:
    lines = [f"| {table_cell(one)} | {table_cell(two)} | 7 |" for one, two in rows]
    assert all(line.count("|") == 4 for line in lines)
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render("\n".join(["| a | b | n |", "|---|---|--:|", *lines]))
    )
    assert html.count("<tr>") == len(rows) + 1
    assert html.count("<td") == 3 * len(rows)


@settings(deadline=None)
@given(hostile)
def test_a_code_span_is_one_span_and_plain_text_is_only_text(text: str) -> None:
    parser = MarkdownIt("commonmark").enable("strikethrough")
    for make in (code_span, table_cell):
        children = parser.parseInline(make(text))[0].children or []
        assert [child.type for child in children] in (["code_inline"], ["text"])
    blocks = parser.parse(plain(text))
    assert [block.type for block in blocks] == ["paragraph_open", "inline", "paragraph_close"]
    children = blocks[1].children or []
    assert {child.type for child in children} <= {"text", "text_special"}


@settings(deadline=None)
@given(st.text(max_size=3000), st.integers(min_value=2, max_value=300))
def test_the_limit_holds_before_the_marks_are_added(text: str, limit: int) -> None:
    shown = code_span(text, limit).replace("@\u200b", "@").strip("` ")
    assert len(shown) <= limit
    assert len(plain(text, limit)) <= 6 * limit


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("ValueError: no", "`ValueError: no`"),
        ("Map<K|V>", "`Map‹K|V›`"),
        ("a `b` c", "``a `b` c``"),
        ("`", "`` ` ``"),
        ("two\nlines\t here", "`two lines here`"),
        ("\u202eevil", "`evil`"),
        ("", "—"),
        (" \n", "—"),
        ("x" * 10_000, f"`{'x' * 199}…`"),
    ],
)
def test_code_spans(text: str, span: str) -> None:
    assert code_span(text) == span


def test_what_it_looks_like() -> None:
    assert table_cell("a|b") == "`a¦b`"
    assert plain("1. Sent & <done> *now*") == r"1\. Sent &amp; &lt;done&gt; \*now\*"
    assert plain("see https://example.org") == "see https:\u200b//example.org"
    assert re.fullmatch("mail ann@\u200bexample.org", plain("mail ann@example.org"))


def test_the_raw_text_would_have_pinged_and_broken() -> None:
    """The stand-in does find what the helpers remove."""
    assert find_mentions(["<!here>"], []).pings == []
    assert find_mentions([rewrite("<!here>", {}, "new")], []).pings == ["@here"]
    assert rewrite("| a<b | 3 | c>d |", {}, "old") != "| a<b | 3 | c>d |"
