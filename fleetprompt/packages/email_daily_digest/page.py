"""The digest's text as a letter: as HTML and as plain text, both from the same Markdown.

The text is the one that Mattermost gets (``digest.render``), in which everything
from outside stands in code or is escaped; here it is read by a CommonMark parser without raw HTML and
without pictures, so nothing in it can become markup, load anything or hide.
"""

from collections.abc import Iterator, Sequence
from html import escape

from markdown_it import MarkdownIt
from markdown_it.token import Token

from fleetprompt.packages.digest.chart import HEIGHT, WIDTH, Bar, described

PICTURE = "trend"
_SUBJECT_LIMIT = 150
# Stands after each @ so that Mattermost mentions nobody; in a letter it only disturbs copying.
_ZERO_WIDTH_SPACE = "\u200b"

_STYLE = """
:root { color-scheme: light dark; supported-color-schemes: light dark; }
body { margin: 0; padding: 24px 16px; background: #ffffff; color: #1f2328;
  font: 15px/1.5 -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
.page { max-width: 760px; margin: 0 auto; }
h4 { font-size: 20px; line-height: 1.3; margin: 0 0 8px; }
p { margin: 0 0 14px; }
table.errors { border-collapse: collapse; width: 100%; margin: 0 0 16px; font-size: 13px; }
.errors th, .errors td { border-bottom: 1px solid #d1d9e0; padding: 6px 8px; text-align: left;
  vertical-align: top; }
.errors th { color: #59636e; font-weight: 600; }
code { font: 12px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  background: #eff1f3; border-radius: 4px; padding: 1px 4px; overflow-wrap: anywhere; }
a { color: #0b62c4; }
.trend { margin: 8px 0 16px; }
.trend img { display: block; width: 100%; max-width: 616px; height: auto; }
.quiet { color: #59636e; font-size: 12px; }
@media (prefers-color-scheme: dark) {
  body { background: #14171a; color: #e6edf3; }
  .errors th, .errors td { border-color: #3a424b; }
  .errors th, .quiet { color: #9aa5b1; }
  code { background: #262c33; }
  a { color: #6cb0ff; }
}
"""


def subject(markdown: str) -> str:
    """The text's first line, without markup."""
    first = next(_lines(_parsed(markdown.split("\n", 1)[0])), "Daily digest")
    line = " ".join(first.split())
    return line if len(line) <= _SUBJECT_LIMIT else f"{line[: _SUBJECT_LIMIT - 1].rstrip()}…"


def html(markdown: str, bars: Sequence[Bar], why: str, token: str) -> str:
    """The page; it shows the picture ``cid:trend`` where there are bars. ``why`` tells who gets it."""
    parser = _parser()
    tokens = parser.parse(_read(markdown))
    for one in tokens:
        if one.type == "table_open":
            one.attrSet("class", "errors")
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta name="supported-color-schemes" content="light dark">'
        f"<title>{escape(subject(markdown))}</title><style>{_STYLE}</style></head>\n"
        f'<body><div class="page">\n{body}{_figure(bars)}'
        f'<p class="quiet">{escape(why)}<br>Reference {escape(token)}</p>\n</div></body></html>\n'
    )


def plain(markdown: str, why: str, token: str) -> str:
    """The same as text: addresses of links stand below their line."""
    lines = list(_lines(_parsed(markdown)))
    return "\n".join([*lines, "", why, f"Reference {token}", ""])


def _figure(bars: Sequence[Bar]) -> str:
    if len(bars) < 2:
        return ""
    signals, errors = max(bar.signals for bar in bars), max(bar.errors for bar in bars)
    told = (
        f"The last {len(bars)} digests, from {escape(bars[0].day)} to {escape(bars[-1].day)}: signals "
        f"above (at most {signals:,}), errors below (at most {errors:,})."
    )
    return (
        f'<div class="trend"><img src="cid:{PICTURE}" width="{WIDTH}" height="{HEIGHT}" '
        f'alt="{escape(described(bars))}"><div class="quiet">{told}</div></div>\n'
    )


def _parser() -> MarkdownIt:
    options = {"html": False, "breaks": True}
    return MarkdownIt("commonmark", options).enable("table").disable(["image", "autolink"])


def _parsed(markdown: str) -> list[Token]:
    return _parser().parse(_read(markdown))


def _read(markdown: str) -> str:
    return markdown.replace(_ZERO_WIDTH_SPACE, "")


def _lines(tokens: Sequence[Token]) -> Iterator[str]:
    """Each block's lines; a table's rows are lines with their cells side by side."""
    cells: list[Token] | None = None
    for one in tokens:
        if one.type == "tr_open":
            cells = []
        elif one.type == "tr_close" and cells is not None:
            found = [_inline(cell) for cell in cells]
            yield " · ".join(text for text, _ in found if text.strip())
            yield from (f"    {address}" for _, links in found for address in links)
            cells = None
        elif one.type == "inline" and cells is not None:
            cells.append(one)
        elif one.type == "inline":
            yield from _paragraph(one)
        elif one.type in ("heading_close", "paragraph_close", "table_close"):
            yield ""


def _paragraph(inline: Token) -> Iterator[str]:
    line: list[Token] = []
    for one in [*(inline.children or []), Token("softbreak", "br", 0)]:
        if one.type not in ("softbreak", "hardbreak"):
            line.append(one)
            continue
        text, links = _told(line)
        yield text
        yield from (f"    {address}" for address in links)
        line = []


def _inline(inline: Token) -> tuple[str, list[str]]:
    return _told(inline.children or [])


def _told(tokens: Sequence[Token]) -> tuple[str, list[str]]:
    text = "".join(one.content for one in tokens if one.type in ("text", "code_inline"))
    links = [str(one.attrGet("href")) for one in tokens if one.type == "link_open"]
    return text, links
