"""A closer look at a signal's bytes: what PostgreSQL cannot store, and what nobody should.

The quick scan costs about a microsecond a kilobyte; only what it suspects is parsed and walked.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from fleetprompt import secrets
from fleetprompt.errors import InvalidError, SecretFoundError

DEPTH_LIMIT = 64

Pointed = dict[str, Any]  # {"pointer": "/3/data", "detail": "…"}

# A number that may be beyond a double (RFC 8259 §6), which readers of signals take for infinite or
# not at all: by its exponent, or by its digits.
_HUGE_NUMBER = re.compile(rb"[0-9][eE][+-]?[0-9]{3,}[\s,\]}]")
# Every digit as 0, both cases of e as one, both signs as +: what such a number needs is then found by
# plain substring search, which takes a tenth of the pattern's time.
_SHAPES = bytes.maketrans(b"123456789E-", b"000000000e+")
_EXPONENTS = (b"0e000", b"0e+000")
_DIGITS = b"0" * 309


def _may_hold_huge_number(body: bytes) -> bool:
    shapes = body.translate(_SHAPES)
    if _DIGITS in shapes:
        return True
    return any(exponent in shapes for exponent in _EXPONENTS) and bool(_HUGE_NUMBER.search(body))


def is_suspect(body: bytes) -> bool:
    """Whether the bytes may hold anything that a closer look would refuse."""
    return (
        (b"\\u" in body and (b"\\u0" in body or b"\\ud" in body or b"\\uD" in body))
        or _may_hold_huge_number(body)
        or secrets.may_hold_secret(body)
    )


def check_depth(raw: bytes, pointer: str) -> None:
    """Refuse JSON that is nested more than ``DEPTH_LIMIT`` deep."""
    # Fewer brackets than the limit cannot be nested deeper than it.
    if raw.count(b"{") + raw.count(b"[") <= DEPTH_LIMIT:
        return
    depth, deepest, in_string, escaped = 0, 0, False, False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x7B, 0x5B):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (0x7D, 0x5D):
            depth -= 1
    if deepest > DEPTH_LIMIT:
        raise InvalidError(
            "This signal is nested too deeply.",
            errors=[{"pointer": pointer, "detail": f"at most {DEPTH_LIMIT} levels"}],
        )


def look_closer(raw: bytes, pointer: str) -> None:
    """Refuse what PostgreSQL cannot store and what nobody should: NUL, surrogates, secrets."""
    errors: list[Pointed] = []

    def number(text: str) -> float:
        found = float(text)
        if math.isinf(found):
            errors.append({"pointer": pointer, "detail": f"the number {text[:24]} is out of range"})
        return found

    value = json.loads(raw, parse_float=number, parse_int=number)
    errors.extend(_bad_text(value, pointer))
    if errors:
        raise InvalidError("This signal cannot be stored.", errors=errors)
    found = [
        {"pointer": at, "detail": f"looks like {what}"} for at, what in secrets.find(value, pointer)
    ]
    if found:
        raise SecretFoundError(
            "Signals hold no secrets. Leave it out, or send a reference to where it is kept.",
            errors=found,
        )


def _bad_text(value: Any, pointer: str) -> Iterator[Pointed]:
    waiting: list[tuple[str, Any]] = [(pointer, value)]
    while waiting:
        at, current = waiting.pop()
        if isinstance(current, str):
            if "\x00" in current:
                yield {"pointer": at, "detail": "holds the character U+0000"}
            if not current.isascii() and any("\ud800" <= c <= "\udfff" for c in current):
                yield {"pointer": at, "detail": "holds half of a surrogate pair"}
        elif isinstance(current, dict):
            for name, child in current.items():
                if "\x00" in name or any("\ud800" <= c <= "\udfff" for c in name):
                    yield {"pointer": at, "detail": "has a member whose name cannot be stored"}
                    continue
                below = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
                waiting.append((below, child))
        elif isinstance(current, list):
            waiting.extend((f"{at}/{i}", child) for i, child in enumerate(current))
