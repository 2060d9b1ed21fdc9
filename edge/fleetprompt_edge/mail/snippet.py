"""The beginning of a mail's text, from the first bytes of one part; none of this raises."""

import base64
import binascii
import quopri
import re
from html import unescape

from fleetprompt_edge.mail.structure import Part
from fleetprompt_edge.mail.text import clean, decoded, one_line, shortened

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_QUOTED = re.compile(r"^\s*>")
_ATTRIBUTION = re.compile(
    r"^.{0,200}\b(?:wrote|schrieb|a écrit|escribió|ha scritto|skrev)\b.{0,80}:$"
)
_SILENT = frozenset({"head", "title", "template", "svg", "noscript"})
_RAW = {name: re.compile(rf"</{name}(?![\w-])", re.IGNORECASE) for name in ("script", "style")}
_TAG_BEGINS = re.compile(r"</?[a-zA-Z]")
# Possessive: what was read once is not read again in another way.
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/<>]{0,63}+)(?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+>")
_UNQUOTED_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/<>]{0,63}+)[^>]*+>")
_MOST_MISQUOTED = 10  # tags; after so many, quotes count no more
_BLOCKS = frozenset(
    {
        "address",
        "article",
        "blockquote",
        "br",
        "dd",
        "div",
        "dl",
        "dt",
        "footer",
        "form",
        "h1",
        "h2",
    }
    | {"h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section"}
    | {"table", "tr", "td", "th", "ul"}
)


def part_text(raw: bytes, part: Part) -> str:
    """The text of a part from its first, still encoded bytes."""
    text = decoded(_unencoded(raw, part.encoding), part.charset)
    if part.content_type == "text/html":
        return html_text(text)
    return _unflowed(text) if part.flowed else text


def snippet(text: str, most: int) -> str | None:
    """One line of at most so many characters: what the sender wrote, else what was quoted."""
    lines = clean(text).splitlines()
    own: list[str] = []
    for line in lines:
        if line.rstrip() == "--" or line == "-- ":
            break
        if _QUOTED.match(line) or _ATTRIBUTION.match(line.strip()):
            continue
        own.append(line)
    found = one_line(" ".join(own)) or one_line(" ".join(lines))
    return shortened(found, most) or None


def body(text: str, most: int) -> str:
    """The whole text, cleaned, at most so many characters."""
    return shortened(clean(text.replace("\r\n", "\n").replace("\r", "\n")).strip(), most)


def html_text(markup: str) -> str:
    """What a reader of an HTML mail sees, lines where blocks end; markup that is cut off ends it.

    In one pass, whatever the markup: html.parser takes minutes for 64 kB that are meant to harm.
    """
    found: list[str] = []
    silent: dict[str, int] = {}  # elements that nobody sees, and how many of each are open
    misquoted = at = 0
    while at < len(markup):
        begin = markup.find("<", at)
        if not silent:
            found.append(_without_references(markup[at:begin] if begin >= 0 else markup[at:]))
        if begin < 0:
            break
        tag = _TAG.match(markup, begin) if misquoted < _MOST_MISQUOTED else None
        if tag is None and _TAG_BEGINS.match(markup, begin):
            # A quote without its end: what looks like the tag's end is taken for it.
            misquoted += 1
            tag = _UNQUOTED_TAG.match(markup, begin)
        if tag is not None:
            at = _after_tag(markup, tag, found, silent)
        elif markup[begin + 1 : begin + 2] in ("!", "?", "/"):
            ending = "-->" if markup.startswith("<!--", begin) else ">"
            at = _after(markup, ending, begin + 2)
        elif _TAG_BEGINS.match(markup, begin):
            break
        else:
            found.append("" if silent else "<")
            at = begin + 1
    return "".join(found)


def _after_tag(markup: str, tag: re.Match[str], found: list[str], silent: dict[str, int]) -> int:
    """Where to read on behind a tag, with what it means for what is read."""
    name = tag[2].lower()
    if name in _BLOCKS:
        found.append("\n")
    if tag[1]:
        if silent.get(name, 0) > 1:
            silent[name] -= 1
        else:
            silent.pop(name, None)
    elif name == "body":
        silent.clear()
    elif name in _RAW:
        # Nothing in there is markup but its own end.
        ending = _RAW[name].search(markup, tag.end())
        return len(markup) if ending is None else _after(markup, ">", ending.end())
    elif name in _SILENT:
        silent[name] = silent.get(name, 0) + 1
    return tag.end()


def _after(markup: str, ending: str, begin: int) -> int:
    at = markup.find(ending, begin)
    return len(markup) if at < 0 else at + len(ending)


def _without_references(text: str) -> str:
    try:
        return unescape(text)
    except ValueError:
        # A character's number with thousands of digits.
        return text


def _unencoded(raw: bytes, encoding: str) -> bytes:
    if encoding == "base64":
        letters = _NOT_BASE64.sub(b"", raw)
        # One letter alone is six bits, no byte: it was cut off.
        letters = letters[:-1] if len(letters) % 4 == 1 else letters
        try:
            return base64.b64decode(letters + b"=" * (-len(letters) % 4))
        except (binascii.Error, ValueError):
            return b""
    if encoding == "quoted-printable":
        return quopri.decodestring(raw)
    return raw


def _unflowed(text: str) -> str:
    """Soft line breaks of format=flowed (RFC 3676 §4) joined."""
    lines: list[str] = []
    soft = False
    for line in text.splitlines():
        current = line.removeprefix(" ")
        if soft and not current.startswith(">"):
            lines[-1] += current
        else:
            lines.append(current)
        soft = current.endswith(" ") and current != "-- "
    return "\n".join(lines)
