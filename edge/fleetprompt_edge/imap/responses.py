"""Reading FETCH responses (RFC 3501 §7.4.2, §9) as ``wire`` hands them over.

A lexer of our own: imapclient's takes most of the time of a fetch, and its ENVELOPE reader gives up on
a whole batch for one malformed envelope (research/edge.md §4, 7). Nothing here reads ENVELOPE at all.
The two answers that come for every mail of a folder are matched whole where they look as they do with every
server, and go through the lexer where they do not.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

from fleetprompt_edge.imap.wire import Piece

_TOKEN = re.compile(
    rb"[ \t]*(?:(?P<open>\()|(?P<close>\))|\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|\{(?P<literal>[0-9]+)\+?\}$"
    rb"|(?P<atom>(?:[^\s()\"\[\]]|\[[^\]]*\])+))",
    re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MONTHS = (b"jan feb mar apr may jun jul aug sep oct nov dec").split()
_MONTH_NUMBERS = {name: number for number, name in enumerate(_MONTHS, start=1)}
_INTERNAL_DATE = re.compile(
    rb"\s*(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2})\s*"
)
_EPOCH = date(1970, 1, 1).toordinal()
_BEGINNING = re.compile(rb"\* \d+ FETCH ", re.IGNORECASE)
_PLACE = re.compile(
    rb"\* \d+ FETCH \(UID (\d+) (?:FLAGS \([^()]*\) )?INTERNALDATE \"([^\"\\]*)\""
    rb" RFC822\.SIZE (\d+)\)"
)
_HEADER = re.compile(
    rb"\* \d+ FETCH \(UID (\d+) (?:FLAGS \([^()]*\) )?"
    rb"BODY\[HEADER\.FIELDS \([^()\"]*\)\](?:<0>)? \{\d+\+?\}"
)
# Deeper than any mail of a person; a MIME bomb ends here.
_DEEPEST = 100


class UnreadableResponseError(ValueError):
    """A response that follows no grammar."""


def messages(raw: Sequence[Piece]) -> Iterator[dict[bytes, Any]]:
    """Each message's items by their upper-case names, in whatever order they came.

    Strings are bytes, NIL is None, lists are lists, numbers are bytes too: the item says what is what.
    A response that cannot be read raises ``UnreadableResponseError``; so does a cut one.
    """
    for pieces in _responses(raw):
        yield _items(_tokens(pieces))


def places(raw: Sequence[Piece]) -> Iterator[tuple[int, int | None, int]]:
    """UID, time of arrival (epoch s) and size of each message; without answers that have no date."""
    for pieces in _responses(raw):
        found = _PLACE.fullmatch(pieces[0]) if isinstance(pieces[0], bytes) else None
        if found is not None:
            yield int(found[1]), arrived_at(found[2]), int(found[3])
            continue
        items = _items(_tokens(pieces))
        if b"INTERNALDATE" in items:
            uid, size = number(items.get(b"UID")), number(items.get(b"RFC822.SIZE"))
            yield uid, arrived_at(items[b"INTERNALDATE"]), size


def header_fields(raw: Sequence[Piece]) -> Iterator[tuple[int, bytes]]:
    """UID and the asked header fields of each message; without answers that lack them."""
    for pieces in _responses(raw):
        first = pieces[0]
        if (
            pieces[1:] == [b")"]
            and isinstance(first, tuple)
            and (found := _HEADER.fullmatch(first[0]))
        ):
            yield int(found[1]), first[1]
            continue
        items = _items(_tokens(pieces))
        header = header_of(items)
        if header is not None:
            yield number(items.get(b"UID")), header


def header_of(items: dict[bytes, Any]) -> bytes | None:
    """The asked header fields among a message's items; an unsolicited answer has none."""
    found = next((one for name, one in items.items() if name.startswith(b"BODY[HEADER")), None)
    return found if isinstance(found, bytes) else None


def number(value: Any) -> int:
    """A number of the answer; 0 for what is none."""
    return int(value) if isinstance(value, bytes) and value.isdigit() else 0


def arrived_at(value: Any) -> int | None:
    """INTERNALDATE in epoch seconds; one digit for the day is taken too (trap 46)."""
    found = _INTERNAL_DATE.fullmatch(value) if isinstance(value, bytes) else None
    if found is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = found.groups()
    hours, minutes, offset = int(hour), int(minute), int(zone_hours) * 60 + int(zone_minutes)
    if hours > 23 or minutes > 59 or offset >= 24 * 60:
        return None
    try:
        days = date(int(year), _MONTH_NUMBERS[month.lower()], int(day)).toordinal() - _EPOCH
    except (KeyError, ValueError):
        return None
    minutes += (days * 24 + hours) * 60 + (offset if sign == b"-" else -offset)
    return minutes * 60 + min(int(second), 59)


def internal_date(value: Any) -> datetime | None:
    """INTERNALDATE in UTC."""
    arrived = arrived_at(value)
    try:
        return None if arrived is None else datetime.fromtimestamp(arrived, UTC)
    except (ValueError, OverflowError):
        return None


def _responses(raw: Sequence[Piece]) -> Iterator[list[Piece]]:
    pieces: list[Piece] = []
    for piece in raw:
        pieces.append(piece)
        if isinstance(piece, bytes):
            yield pieces
            pieces = []
    if pieces:
        raise UnreadableResponseError("the response ends in a literal")


def _tokens(pieces: list[Piece]) -> Iterator[tuple[str, bytes]]:
    at = _beginning(pieces[0])
    for piece in pieces:
        line, literal = piece if isinstance(piece, tuple) else (piece, None)
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
        at = 0


def _beginning(first: Piece) -> int:
    """Where ``* 12 FETCH `` ends: the sequence number is of no use."""
    found = _BEGINNING.match(first if isinstance(first, bytes) else first[0])
    if found is None:
        raise UnreadableResponseError("no answer to FETCH")
    return found.end()


def _items(tokens: Iterator[tuple[str, bytes]]) -> dict[bytes, Any]:
    """``(UID 5 FLAGS (\\Seen) …)`` as a dictionary."""
    if next(tokens, ("", b""))[0] != "open":
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
