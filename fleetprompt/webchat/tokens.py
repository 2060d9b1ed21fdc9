"""Visitors' tokens: who speaks on which site from which origin, for at most 15 minutes.

``base64url(claims) "." base64url(HMAC-SHA256)``; no algorithm is named in it, so none can be chosen.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from fleetprompt.errors import (
    TokenExpiredError,
    TokenInvalidError,
    TokenKeyUnknownError,
    TokenOriginMismatchError,
    TokenSiteMismatchError,
)
from fleetprompt.webchat.signing import decode, encode, holds, mac

LONGEST_LIFE = 900  # seconds
LENGTH_LIMIT = 1024
_PURPOSE = "visitor-token"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """One of a site's secrets; a retired one still reads the tokens that it signed before."""

    id: UUID
    content: bytes = field(repr=False)
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says; times are Unix seconds."""

    site: UUID
    visitor: UUID
    origin: str
    issued_at: int
    expires_at: int


def sign(claims: Claims, secret: SigningSecret) -> str:
    """A token with these claims."""
    payload = {
        "v": _VERSION,
        "kid": str(secret.id),
        "site": str(claims.site),
        "visitor": str(claims.visitor),
        "origin": claims.origin,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
    }
    text = encode(json.dumps(payload, sort_keys=True, separators=(",", ":")).encode())
    return f"{text}.{encode(mac(secret.content, _PURPOSE, text))}"


def check(
    token: str, *, site: UUID, origin: str, secrets: Mapping[UUID, SigningSecret], now: datetime
) -> Claims:
    """The claims of a token that holds here and now; one of the ``TokenError`` otherwise.

    What an unsigned claim says decides only which refusal is answered.
    """
    text, _, signature = token.partition(".")
    kid, claims = _read(text if len(token) <= LENGTH_LIMIT else "")
    if claims.site != site:
        raise TokenSiteMismatchError
    secret = secrets.get(kid)
    if secret is None:
        raise TokenKeyUnknownError
    if not holds(secret.content, _PURPOSE, text, _bytes(signature)):
        raise TokenInvalidError
    if secret.retired_at is not None and claims.issued_at > secret.retired_at.timestamp():
        raise TokenKeyUnknownError
    if now.timestamp() >= claims.expires_at:
        raise TokenExpiredError
    if claims.expires_at - claims.issued_at > LONGEST_LIFE:
        raise TokenInvalidError
    if claims.origin != origin:
        raise TokenOriginMismatchError
    return claims


def _bytes(text: str) -> bytes:
    try:
        return decode(text)
    except ValueError:
        raise TokenInvalidError from None


def _read(text: str) -> tuple[UUID, Claims]:
    try:
        found = json.loads(_bytes(text))
        if found["v"] != _VERSION:
            raise TokenInvalidError
        claims = Claims(
            site=UUID(found["site"]),
            visitor=UUID(found["visitor"]),
            origin=str(found["origin"]),
            issued_at=int(found["iat"]),
            expires_at=int(found["exp"]),
        )
        return UUID(found["kid"]), claims
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise TokenInvalidError from None
