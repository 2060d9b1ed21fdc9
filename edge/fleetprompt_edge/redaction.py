"""The known shapes of secrets, masked before anything leaves this machine or reaches a log.

The same shapes that the platform refuses in signals: its own keys, incoming-webhook URLs, PEM
blocks, authorization values. A mail that quotes one must not be lost for it.
"""

import re
from typing import Any

MASK = "[redacted]"
# Every repetition is bounded: what is searched was written by strangers.
_VALUE = re.compile(
    r"fp_(?:user|conn|pub)_[0-9A-Za-z]{43}"
    r"|(?:https?://[^\s\"'<>]{1,256}?)?/(?:hooks|services)/[0-9A-Za-z/_-]{8,}"
    r"|-----BEGIN [A-Z0-9 ]{0,32}?(?:PRIVATE KEY|CERTIFICATE)[A-Z0-9 ]{0,16}-----"
    r"|(?i:\b(?:bearer|basic)\s{1,8}[0-9A-Za-z._~+/=-]{12,})",
    re.ASCII,
)
_PAIR = re.compile(
    r"(?i)((?:\b|_)(?:password|passwd|passphrase|secret|api[_-]?key|token)[\"']?\s{0,8}[:=]\s{0,8})"
    r"(\"[^\"\r\n]+|'[^'\r\n]+|[^\s\"',;&]+)"
)
# What the platform takes for the name of a secret, whatever it holds.
SECRET_NAME = re.compile(
    r"(?i)^(?:.*[_-])?(?:password|passwd|passphrase|secret|client[_-]?secret|api[_-]?key|"
    r"access[_-]?token|refresh[_-]?token|auth[_-]?token|private[_-]?key|authorization|"
    r"cookie|set-cookie|credentials?)$",
    re.ASCII,
)


def masked(text: str) -> str:
    """``text`` with every known shape of a secret masked."""
    return _VALUE.sub(MASK, text)


def masked_for_log(text: str, secrets: tuple[str, ...] = ()) -> str:
    """The same for logs: also what follows a name such as ``password``, and the given secrets."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return _PAIR.sub(rf"\1{MASK}", masked(text))


def masked_value(value: Any) -> Any:
    """A JSON value with all its texts masked."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {name: masked_value(child) for name, child in value.items()}
    if isinstance(value, list):
        return [masked_value(child) for child in value]
    return value
