"""Identity tokens: a site's own server says who its signed-in customer is (JWT, RFC 7519; HS256 alone)."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Any

from fleetprompt.errors import IdentityExpiredError, IdentityInvalidError, InvalidError
from fleetprompt.webchat.signing import decode
from fleetprompt.webchat.text import checked_email, checked_name

LENGTH_LIMIT = 4096
FURTHEST_EXPIRY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the site says that it is."""

    subject: str
    name: str | None
    email: str | None


def read_identity(token: str, secret: bytes, now: datetime) -> Identity:
    """The identity in a token; IdentityInvalidError or IdentityExpiredError if it does not hold."""
    try:
        head, payload, signature = token.split(".")
        good = compare_digest(
            digest(secret, f"{head}.{payload}".encode(), sha256), decode(signature)
        )
        algorithm = _object(head).get("alg")
        claims = _object(payload)
    except (ValueError, RecursionError):
        raise IdentityInvalidError from None
    expires = claims.get("exp")
    if (
        not good
        or len(token) > LENGTH_LIMIT
        or algorithm != "HS256"
        or not isinstance(expires, int | float)
    ):
        raise IdentityInvalidError
    if expires <= now.timestamp():
        raise IdentityExpiredError
    if expires > (now + FURTHEST_EXPIRY).timestamp():
        raise IdentityInvalidError("An identity token expires within a day.")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 200 or not subject.isprintable():
        raise IdentityInvalidError("An identity token has a subject.")
    try:
        return Identity(
            subject, checked_name(claims.get("name")), checked_email(claims.get("email"))
        )
    except InvalidError:
        raise IdentityInvalidError("The token's name or address cannot be used.") from None


def _object(part: str) -> dict[str, Any]:
    found = json.loads(decode(part))
    if not isinstance(found, dict):
        raise ValueError("not an object")  # noqa: TRY004 - like what json raises
    return found
