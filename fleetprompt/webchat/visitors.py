"""Visitors' secrets: what makes somebody the same visitor again, without a row for those who only look.

``v1.<made>.<random>.<signature>``; the visitor's id follows from it. It holds 90 days from its making,
however often it is used: were each use to prolong it, a stolen one would last for ever.
"""

import secrets
from datetime import datetime, timedelta
from uuid import UUID

from fleetprompt.errors import VisitorExpiredError
from fleetprompt.webchat.signing import decode, encode, holds, mac

LIFE = timedelta(days=90)
LENGTH_LIMIT = 128
_VERSION = "v1"
_RANDOM_BYTES = 20


def new_visitor(secret: bytes, now: datetime) -> str:
    """A new visitor's secret, signed with the site's own."""
    text = f"{_VERSION}.{int(now.timestamp())}.{encode(secrets.token_bytes(_RANDOM_BYTES))}"
    return f"{text}.{encode(mac(secret, 'visitor', text))}"


def visitor_id(secret: bytes, visitor: str, now: datetime) -> UUID:
    """The id of the visitor with this secret; VisitorExpiredError if it does not hold."""
    text, _, signature = visitor.rpartition(".")
    try:
        version, made, _ = text.split(".")
        good = (
            len(visitor) <= LENGTH_LIMIT
            and version == _VERSION
            and holds(secret, "visitor", text, decode(signature))
            and now.timestamp() < int(made) + LIFE.total_seconds()
        )
    except ValueError:
        good = False
    if not good:
        raise VisitorExpiredError
    return UUID(bytes=mac(secret, "visitor-id", text)[:16])
