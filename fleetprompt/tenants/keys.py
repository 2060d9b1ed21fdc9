"""API keys as text: ``fp_<kind>_`` + 37 random base62 characters + 6 of the CRC-32 of what precedes.

37 base62 characters hold 220 bits, so a key needs no slow hash: what is stored is an HMAC-SHA256
under a key derived from the master key. The checksum refuses typing errors and made-up keys
before the database is asked, and lets a scanner know a real key when it sees one.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from enum import StrEnum
from typing import Literal

Kind = Literal["user", "conn", "pub"]
Role = Literal["owner", "admin", "member", "viewer"]
ROLES: tuple[Role, ...] = ("viewer", "member", "admin", "owner")  # least first

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TOKEN = re.compile(r"fp_(user|conn|pub)_([0-9A-Za-z]{37})([0-9A-Za-z]{6})")


class Scope(StrEnum):
    """What a key may do. Described in ``docs/reference/scopes.md``."""

    SIGNALS_WRITE = "signals:write"
    SIGNALS_READ = "signals:read"
    DIRECTIVES_READ = "directives:read"
    DIRECTIVES_WRITE = "directives:write"
    DIRECTIVES_EXECUTE = "directives:execute"
    APPROVALS_DECIDE = "approvals:decide"
    EXECUTIONS_READ = "executions:read"
    EXECUTIONS_WRITE = "executions:write"
    PACKAGES_READ = "packages:read"
    PACKAGES_WRITE = "packages:write"
    WEBCHAT_READ = "webchat:read"
    WEBCHAT_WRITE = "webchat:write"
    MEMBERS_MANAGE = "members:manage"
    KEYS_MANAGE = "keys:manage"
    TENANTS_ADMIN = "tenants:admin"


TENANT_SCOPES = frozenset(Scope) - {Scope.TENANTS_ADMIN}
# A connector's key lies on a customer's machine: of the tenant's directives it sees its own alone.
CONNECTOR_SCOPES = frozenset({Scope.SIGNALS_WRITE, Scope.DIRECTIVES_EXECUTE})


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def make_token(kind: Kind) -> str:
    """A new random key; show it once and keep only its hash."""
    body = f"fp_{kind}_" + "".join(secrets.choice(_ALPHABET) for _ in range(37))
    return body + _base62(zlib.crc32(body.encode()), 6)


def well_formed(token: str) -> bool:
    """Whether the shape and the checksum are right; says nothing about whether the key exists."""
    found = _TOKEN.fullmatch(token)
    return bool(found) and token[-6:] == _base62(zlib.crc32(token[:-6].encode()), 6)


def token_hash(hash_key: bytes, token: str) -> bytes:
    """What is stored of a key: 32 bytes."""
    return hmac.digest(hash_key, token.encode(), hashlib.sha256)


def hint_of(token: str) -> str:
    """Enough to tell keys apart in a list and not enough to guess one: ``fp_user_Ab3…``."""
    return token[: token.rindex("_") + 4] + "…"


def fits_connector_id(text: str) -> bool:
    """Whether a connector may be called this; "platform" is who works off all other directives."""
    return 0 < len(text) <= 128 and text.isprintable() and text != "platform"


def at_least(role: str | None, needed: Role) -> bool:
    """Whether ``role`` includes what ``needed`` may do."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(needed)


def lesser(one: Role, other: Role) -> Role:
    """The one of two roles that may do less."""
    return min(one, other, key=ROLES.index)
