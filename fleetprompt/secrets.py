"""The known shapes of secrets: found before anything is stored, masked before anything is printed.

The shapes: FleetPrompt's own keys (kind, 37 base62 characters, CRC32 of them in 6 more),
incoming-webhook URLs, PEM blocks, ``Authorization`` values, and string values under names
such as ``password`` or ``client_secret``.
"""

import re
from collections.abc import Iterator
from typing import Any

from ahocorasick_rs import BytesAhoCorasick

# Every repetition is bounded: what is searched may be chosen by somebody who wants the search to last.
# Kept in step with fleetprompt.tenants.keys; a test issues a key and finds it with this shape.
_OWN_KEY = r"fp_(?:user|conn|pub)_[0-9A-Za-z]{43}"
_WEBHOOK = r"https?://[^\s\"'<>]{1,256}?/(?:hooks|services)/[0-9A-Za-z/_-]{8,}"
_PEM = r"-----BEGIN [A-Z0-9 ]{0,32}?(?:PRIVATE KEY|CERTIFICATE)[A-Z0-9 ]{0,16}-----"
_AUTHORIZATION = r"(?i:\b(?:bearer|basic)\s{1,8}[0-9A-Za-z._~+/=-]{12,})"

# ASCII, so that letters are those that the raw scan below looks for and not their Unicode kin.
VALUE = re.compile("|".join((_OWN_KEY, _WEBHOOK, _PEM, _AUTHORIZATION)), re.ASCII)
NAME = re.compile(
    r"(?i)^(?:.*[_-])?(?:password|passwd|passphrase|secret|client[_-]?secret|api[_-]?key|"
    r"access[_-]?token|refresh[_-]?token|auth[_-]?token|private[_-]?key|authorization|"
    r"cookie|set-cookie|credentials?)$",
    re.ASCII,
)
# Looked for in the raw lower-case bytes of JSON, to decide whether a closer look is needed at all.
# Escaped ASCII may spell any of them, so it counts too. One pass for all of them (Aho-Corasick) takes two
# microseconds for a kilobyte.
_HINTS = (
    *(b"fp_", b"hooks/", b"services/", b"-----begin", b"bearer", b"basic", b"pass", b"secret"),
    *(b"hooks\\/", b"services\\/"),  # JSON may escape a slash, and PHP does
    *(
        b"api_key",
        b"api-key",
        b"apikey",
        b"token",
        b"private",
        b"authoriz",
        b"cookie",
        b"credential",
    ),
    b"\\u00",
)

_HINT_SEARCH = BytesAhoCorasick(_HINTS)

_MASK = "[redacted]"
_WEBHOOK_MASK = re.compile(
    r"(https?:\\?/\\?/[^\s\"'<>/\\]{1,256})[^\s\"'<>]{0,256}?/(hooks|services)\\?/[0-9A-Za-z/\\_-]{8,}"
)
# Headers whose value is more than one word: to the end of the line or of the quotes.
_HEADER = re.compile(
    r"(?i)((?:\b|(?<=[_-]))(?:authorization|cookie)[\"']?\s{0,8}[:=]\s{0,8}[\"']?)[^\r\n\"']+"
)
_PAIR = re.compile(
    r"(?i)((?:(?:\b|(?<=[_-]))(?:password|passwd|passphrase|secret|api[_-]?key|private[_-]?key)"
    r"|(?<=[a-z][_-])token)[\"']?\s{0,8}[:=]\s{0,8})(\"[^\"\r\n]+|'[^'\r\n]+|[^\s\"',;&]+)"
)
_URL_PASSWORD = re.compile(r"(\b[a-zA-Z][\w+.-]{0,31}://[^\s:/@]{0,128}:)[^\s@/]+(@)")


def redact(text: str) -> str:
    """``text`` with every known shape of a secret masked; the rest unchanged."""
    text = _WEBHOOK_MASK.sub(rf"\1/\2/{_MASK}", text)
    text = _URL_PASSWORD.sub(rf"\1{_MASK}\2", text)
    text = VALUE.sub(_MASK, text)
    text = _HEADER.sub(rf"\1{_MASK}", text)
    return _PAIR.sub(_masked_pair, text)


def _masked_pair(found: re.Match[str]) -> str:
    value = found[2]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found[1]}{quote}{_MASK}"


def find(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``(pointer, what)`` for each place in a JSON value that looks like a secret.

    ``pointer`` is an RFC 6901 pointer below the one given; ``what`` names the shape, never the value.
    A name such as ``password`` counts only over a non-empty string: ``{"password": null}`` and
    ``{"password_changed": true}`` hold none. Where the name itself is a secret, its object is named.
    """
    waiting: list[tuple[str, Any]] = [(pointer, value)]
    while waiting:
        at, current = waiting.pop()
        if isinstance(current, str):
            if VALUE.search(current):
                yield at, "a key, webhook URL, private key or authorization value"
        elif isinstance(current, dict):
            for name, child in current.items():
                if VALUE.search(name):
                    yield at, "a member that is named by a key, webhook URL or authorization value"
                    continue
                below = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
                if isinstance(child, str) and child and NAME.match(name):
                    yield below, f"a value under the name {name!r}"
                else:
                    waiting.append((below, child))
        elif isinstance(current, list):
            waiting.extend((f"{at}/{i}", child) for i, child in enumerate(current))


def may_hold_secret(raw: bytes) -> bool:
    """Whether raw JSON is worth a closer look with ``find``; never false for what that would find."""
    return bool(_HINT_SEARCH.find_matches_as_indexes(raw.lower()))
