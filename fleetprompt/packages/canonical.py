"""Canonical JSON (RFC 8785): one text for one value, so that its hash can be compared."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fleetprompt.errors import InvalidError


def canonical_json(value: Any) -> bytes:
    """``value`` as RFC 8785 writes it: no spaces, names sorted by UTF-16 units, numbers as in ES6.

    Raises InvalidError for what has no such form: NaN, infinities, lone surrogates, integers
    beyond 2**53, and anything that is not JSON.
    """
    try:
        return "".join(_canonical(value)).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise InvalidError("This value has no canonical JSON form.") from error


def _canonical(value: Any) -> Iterator[str]:
    if value is None or isinstance(value, bool):
        yield {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        yield _quoted(value)
    elif isinstance(value, int | float):
        yield _number(value)
    elif isinstance(value, Mapping):
        yield "{"
        for index, name in enumerate(sorted(value, key=_utf16)):
            yield f"{',' if index else ''}{_quoted(name)}:"
            yield from _canonical(value[name])
        yield "}"
    elif isinstance(value, list | tuple):
        yield "["
        for index, item in enumerate(value):
            yield "," if index else ""
            yield from _canonical(item)
        yield "]"
    else:
        raise InvalidError(f"A {type(value).__name__} has no canonical JSON form.")


_ESCAPES = {
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\f": "\\f",
    "\r": "\\r",
    '"': '\\"',
    "\\": "\\\\",
}
_ESCAPED = re.compile(r'[\x00-\x1f"\\]')


def _quoted(text: object) -> str:
    if not isinstance(text, str):
        raise InvalidError("A name in a JSON object must be a string.")
    body = _ESCAPED.sub(lambda m: _ESCAPES.get(m[0], f"\\u{ord(m[0]):04x}"), text)
    return f'"{body}"'


def _utf16(name: object) -> bytes:
    return name.encode("utf-16-be") if isinstance(name, str) else b""


def _number(value: float) -> str:
    """A number as ECMAScript's Number::toString writes it (RFC 8785 §3.2.2.3)."""
    if isinstance(value, int) and abs(value) > 2**53:
        raise InvalidError("An integer beyond 2**53 has no canonical JSON form.")
    number = float(value)
    if not math.isfinite(number):
        raise InvalidError("A number that is not finite has no JSON form.")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    digits, _, exponent = f"{abs(number)!r}".partition("e")
    whole, _, fraction = digits.partition(".")
    point = len(whole) + int(exponent or 0)
    significant = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(significant)
    significant = significant.rstrip("0")
    count = len(significant)
    if count <= point <= 21:
        return sign + significant.ljust(point, "0")
    if 0 < point <= 21:
        return f"{sign}{significant[:point]}.{significant[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{significant}"
    rest = f".{significant[1:]}" if count > 1 else ""
    return f"{sign}{significant[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1)}"
