"""What an option of a profile may be: one reader for each kind of value.

A reader takes what TOML gave, returns the value to use, or raises ``ValueError`` with a message
that says what is wanted. Messages never repeat the value: it may be a secret in the wrong place.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

Reader = Callable[[Any], Any]

_API_KEY = re.compile(r"fp_(?:user|conn|pub)_")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
# A host name or IPv4 address, or IPv6 without the brackets, which belong to URLs only.
_HOST = re.compile(r"[0-9A-Za-z](?:[0-9A-Za-z.-]{0,251}[0-9A-Za-z])?|(?=.*:.*:)[0-9A-Fa-f:.]{2,45}")
# RFC 5322 §3.6.8: printable ASCII without the colon.
_HEADER_NAME = re.compile(r"[!-9;-~]+")
# Bridge has no SMTPUTF8, so that both halves are ASCII.
_ADDRESS = re.compile(r"[!-?A-~]{1,64}@[0-9A-Za-z](?:[0-9A-Za-z.-]{0,251}[0-9A-Za-z])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FINGERPRINT = re.compile(r"(?:[0-9A-Fa-f]{2}[: ]?){31}[0-9A-Fa-f]{2}")
LABELS = "Labels/"


def text(value: Any) -> str:
    """Text on one line that is not empty and holds no API key."""
    if not isinstance(value, str):
        raise ValueError("must be text in quotation marks")  # noqa: TRY004 - one error for a profile
    if not value.strip():
        raise ValueError("must not be empty")
    if _CONTROL.search(value):
        raise ValueError("must be one line without control characters")
    if _API_KEY.search(value):
        raise ValueError("holds an API key; secrets have no place in a profile")
    return value


def flag(value: Any) -> bool:
    """``true`` or ``false``."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false, without quotation marks")  # noqa: TRY004
    return value


def whole_number(least: int, most: int) -> Reader:
    """A whole number between the two, both included."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"must be a whole number from {least} to {most}")
        return value

    return read


def one_of(*names: str) -> Reader:
    """One of a few names."""

    def read(value: Any) -> str:
        if value not in names:
            raise ValueError("must be " + " or ".join(f'"{name}"' for name in names))
        return str(value)

    return read


def list_of(item: Reader, *, least: int = 0) -> Reader:
    """A list without repetitions; the message names the place of an unfit item, from 1."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("must be a list in square brackets")  # noqa: TRY004
        found: list[Any] = []
        for place, entry in enumerate(value, start=1):
            try:
                one = item(entry)
            except ValueError as error:
                raise ValueError(f"entry {place} {error}") from None
            if one in found:
                raise ValueError(f"entry {place} is there twice")
            found.append(one)
        if len(found) < least:
            raise ValueError(f"must have at least {least} entry")
        return tuple(found)

    return read


def identifier(value: Any) -> str:
    """A UUID, in its usual form."""
    try:
        return str(UUID(text(value)))
    except ValueError:
        raise ValueError("must be a UUID such as 0198c0de-0000-7000-8000-000000000000") from None


def host(value: Any) -> str:
    """A host name or IP address; not ``localhost``, which Bridge's certificate does not name."""
    name = text(value)
    if name.lower().rstrip(".") == "localhost":
        raise ValueError(
            'must be "127.0.0.1" instead of localhost: Bridge listens there only, '
            "and its certificate names no other address"
        )
    if not _HOST.fullmatch(name):
        raise ValueError("must be a host name or an IP address, without a port")
    return name


def base_url(value: Any) -> str:
    """An ``https://`` address without a trailing slash; ``http://`` on this machine only."""
    url = text(value)
    try:
        parts = urlsplit(url)
        name, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be an address such as https://fleetprompt.example") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password")
    if not name or parts.query or parts.fragment or re.search(r"\s", url):
        raise ValueError("must be an address such as https://fleetprompt.example")
    if parts.scheme != "https" and not (parts.scheme == "http" and name in _LOOPBACK):
        raise ValueError("must begin with https://; what is sent would be readable otherwise")
    return url.rstrip("/")


def header_name(value: Any) -> str:
    """The name of a mail header, without its colon."""
    name = text(value)
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError("must be the name of a header, without the colon")
    return name


def address(value: Any) -> str:
    """A mail address without a display name."""
    found = text(value)
    if not _ADDRESS.fullmatch(found):
        raise ValueError("must be a mail address such as support@example.org, without a name")
    return found


def sender(value: Any) -> str:
    """A mail address, or a domain with its @; in lower case."""
    found = text(value)
    if not _ADDRESS.fullmatch(found if not found.startswith("@") else f"anybody{found}"):
        raise ValueError("must be an address such as news@example.org, or a domain: @example.org")
    return found.lower()


def label(value: Any) -> str:
    """A label as Bridge shows it over IMAP: a folder below ``Labels``, one level deep."""
    name = text(value)
    if not name.startswith(LABELS) or "/" in name[len(LABELS) :] or name == LABELS:
        raise ValueError(f'must be a label as Bridge shows it, such as "{LABELS}Processed"')
    return name


def fingerprint(value: Any) -> str:
    """A SHA-256 fingerprint: 32 pairs of hex digits, with or without colons."""
    found = text(value)
    if not _FINGERPRINT.fullmatch(found):
        raise ValueError("must be a SHA-256 fingerprint: 32 pairs of hex digits")
    digits = re.sub(r"[^0-9A-Fa-f]", "", found).upper()
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))
