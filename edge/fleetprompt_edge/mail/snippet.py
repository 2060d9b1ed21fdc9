"""The beginning of a mail's text, from the first bytes of one part; none of this raises."""

import base64
import binascii
import quopri
import re
from contextlib import suppress
from html.parser import HTMLParser

from fleetprompt_edge.mail.structure import Part
from fleetprompt_edge.mail.text import clean, decoded, one_line, shortened

_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")
_QUOTED = re.compile(r"^\s*>")
_ATTRIBUTION = re.compile(
    r"^.{0,200}\b(?:wrote|schrieb|a écrit|escribió|ha scritto|skrev)\b.{0,80}:$"
)
_SILENT = frozenset({"script", "style", "head", "title", "template", "svg", "noscript"})
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
    """What a reader of an HTML mail sees, lines where blocks end."""
    reader = _Text()
    # Broken beyond html.parser: what was read so far has to do.
    with suppress(ValueError, AssertionError, RecursionError):
        reader.feed(markup)
        reader.close()
    return "".join(reader.found)


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        elif tag == "body":
            self._silent.clear()
        if tag in _BLOCKS:
            self.found.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            self._silent.remove(tag)
        if tag in _BLOCKS:
            self.found.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data)


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
