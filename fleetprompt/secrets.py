"""The known shapes of secrets: found before anything is stored, masked before anything is printed.

The shapes: FleetPrompt's own keys (kind, 37 base62 characters, CRC32 of them in 6 more),
incoming-webhook URLs, PEM blocks, ``Authorization`` values, and string values under names
such as ``password`` or ``client_secret``.
"""

import re
from collections.abc import Iterator
from typing import Any

# Kept in step with fleetprompt.tenants.keys; a test issues a key and finds it with this shape.
_OWN_KEY = r"fp_(?:user|conn|pub)_[0-9A-Za-z]{43}"
_WEBHOOK = r"https?://[^\s\"'<>]*?/(?:hooks|services)/[0-9A-Za-z/_-]{8,}"
_PEM = r"-----BEGIN [A-Z0-9 ]*(?:PRIVATE KEY|CERTIFICATE)[A-Z0-9 ]*-----"
_AUTHORIZATION = r"(?i:\b(?:bearer|basic)\s+[0-9A-Za-z._~+/=-]{12,})"

VALUE = re.compile("|".join((_OWN_KEY, _WEBHOOK, _PEM, _AUTHORIZATION)))
NAME = re.compile(
    r"(?i)^(?:.*[_-])?(?:password|passwd|passphrase|secret|client[_-]?secret|api[_-]?key|"
    r"access[_-]?token|refresh[_-]?token|auth[_-]?token|private[_-]?key|authorization|"
    r"cookie|set-cookie|credentials?)$"
)
# Looked for in the raw lower-case bytes of JSON, to decide whether a closer look is needed at all.
# Escaped ASCII may spell any of them, so it counts too. Plain substring search is what keeps this
# near a microsecond for a kilobyte.
_HINTS = (
    *(b"fp_", b"hooks/", b"services/", b"-----begin", b"bearer", b"basic ", b"pass", b"secret"),
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

_MASK = "[redacted]"
_WEBHOOK_MASK = re.compile(
    r"(https?://[^\s\"'<>/]+)[^\s\"'<>]*?/(hooks|services)/[0-9A-Za-z/_-]{8,}"
)
_PAIR = re.compile(
    r"(?i)(\b(?:\w*[_-])?(?:password|passwd|secret|api[_-]?key|[a-z]+[_-]token|authorization|cookie)"
    r"[\"']?\s*[:=]\s*[\"']?)([^\s\"',;&]+)"
)
_URL_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s:/@]+:)[^\s@/]+(@)")


def redact(text: str) -> str:
    """``text`` with every known shape of a secret masked; the rest unchanged."""
    text = _WEBHOOK_MASK.sub(rf"\1/\2/{_MASK}", text)
    text = _URL_PASSWORD.sub(rf"\1{_MASK}\2", text)
    text = VALUE.sub(_MASK, text)
    return _PAIR.sub(rf"\1{_MASK}", text)


def find(value: Any, pointer: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``(pointer, what)`` for each place in a JSON value that looks like a secret.

    ``pointer`` is an RFC 6901 pointer below the one given; ``what`` names the shape, never the value.
    A name such as ``password`` counts only over a non-empty string: ``{"password": null}`` and
    ``{"password_changed": true}`` hold none.
    """
    waiting: list[tuple[str, Any]] = [(pointer, value)]
    while waiting:
        at, current = waiting.pop()
        if isinstance(current, str):
            if VALUE.search(current):
                yield at, "a key, webhook URL, private key or authorization value"
        elif isinstance(current, dict):
            for name, child in current.items():
                below = f"{at}/{name.replace('~', '~0').replace('/', '~1')}"
                if isinstance(child, str) and child and NAME.match(name):
                    yield below, f"a value under the name {name!r}"
                else:
                    waiting.append((below, child))
        elif isinstance(current, list):
            waiting.extend((f"{at}/{i}", child) for i, child in enumerate(current))


def may_hold_secret(raw: bytes) -> bool:
    """Whether raw JSON is worth a closer look with ``find``; never false for what that would find."""
    lower = raw.lower()
    return any(hint in lower for hint in _HINTS)
