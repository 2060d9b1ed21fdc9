"""Reading FETCH responses (RFC 3501 §7.4.2, §9) as imaplib hands them over.

A lexer of our own: imapclient's takes most of the time of a fetch, and its ENVELOPE reader gives up on
a whole batch for one malformed envelope (research/edge.md §4, 7). Nothing here reads ENVELOPE at all.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

Raw = Iterable[bytes | tuple[bytes, bytes] | None]

_TOKEN = re.compile(
    rb"[ \t]*(?:(?P<open>\()|(?P<close>\))|\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|\{(?P<literal>[0-9]+)\+?\}$"
    rb"|(?P<atom>(?:[^\s()\"\[\]]|\[[^\]]*\])+))",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MONTHS = (b"jan feb mar apr may jun jul aug sep oct nov dec").split()
_INTERNAL_DATE = re.compile(
    rb"\s*(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})\s*"
)
# Deeper than any mail of a person; a MIME bomb ends here.
_DEEPEST = 100


class UnreadableResponseError(ValueError):
    """A response that follows no grammar."""


def messages(raw: Raw) -> Iterator[dict[bytes, Any]]:
    """Each message's items by their upper-case names, in whatever order they came.

    Strings are bytes, NIL is None, lists are lists, numbers are bytes too: the item says what is what.
    A response that cannot be read raises ``UnreadableResponseError``; so does a cut one.
    """
    pieces: list[bytes | tuple[bytes, bytes]] = []
    for item in raw:
        if item is None:
            continue
        pieces.append(item)
        # imaplib ends a response with a plain line; what precedes a literal comes as a pair.
        if isinstance(item, bytes):
            yield _items(_tokens(pieces))
            pieces = []
    if pieces:
        raise UnreadableResponseError("the response ends in a literal")


def internal_date(value: Any) -> datetime | None:
    """INTERNALDATE in UTC; one digit for the day is taken too (trap 46)."""
    found = _INTERNAL_DATE.fullmatch(value) if isinstance(value, bytes) else None
    if found is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        zone = timezone(-offset if sign == b"-" else offset)
        number = _MONTHS.index(month.lower()) + 1
        return datetime(
            int(year), number, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=zone
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _tokens(pieces: list[bytes | tuple[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    for piece in pieces:
        line, literal = piece if isinstance(piece, tuple) else (piece, None)
        at = 0
        end = len(line.rstrip())
        while at < end:
            found = _TOKEN.match(line, at, end)
            if found is None:
                raise UnreadableResponseError("the response is malformed")
            at = found.end()
            kind = found.lastgroup or ""
            if kind == "literal":
                if literal is None:
                    raise UnreadableResponseError("a literal is missing")
                yield "text", literal
            elif kind == "quoted":
                text = found["quoted"]
                yield "text", _ESCAPED.sub(rb"\1", text) if b"\\" in text else text
            else:
                yield kind, found[kind]


def _items(tokens: Iterator[tuple[str, bytes]]) -> dict[bytes, Any]:
    """``12 (UID 5 FLAGS (\\Seen) …)`` as a dictionary; the sequence number is of no use."""
    if next(tokens, ("", b""))[0] != "atom" or next(tokens, ("", b""))[0] != "open":
        raise UnreadableResponseError("no list of items")
    values = _list(tokens, 0)
    if len(values) % 2 or not all(isinstance(name, bytes) for name in values[::2]):
        raise UnreadableResponseError("an item has no value")
    return {name.upper(): value for name, value in zip(values[::2], values[1::2], strict=True)}


def _list(tokens: Iterator[tuple[str, bytes]], depth: int) -> list[Any]:
    if depth > _DEEPEST:
        raise UnreadableResponseError("nested too deeply")
    found: list[Any] = []
    for kind, text in tokens:
        if kind == "close":
            return found
        if kind == "open":
            found.append(_list(tokens, depth + 1))
        elif kind == "atom" and text.upper() == b"NIL":
            found.append(None)
        else:
            found.append(text)
    raise UnreadableResponseError("the response ends too early")
