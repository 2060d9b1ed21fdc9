"""Which mail a message is, whatever folder, UID or UIDVALIDITY it is found under.

1. ``X-Pm-Internal-Id``: Proton's own id; stays over folders, resyncs and a new Bridge.
2. Else Message-ID with the time of arrival and the size: different mails may share a Message-ID.
3. Else a digest of the fields that say what the mail is, with time of arrival and size.

``X-Pm-Gluon-Id`` changes with each resync and is never part of it (research/edge.md §2.6, trap 16).
"""

import hashlib
import re

from fleetprompt_edge.imap.session import Head
from fleetprompt_edge.mail.headers import Headers

IDENTIFIERS = ("X-Pm-Internal-Id", "Message-ID")
_CANONICAL = ("from", "to", "cc", "subject", "date", "reply-to")
# Proton's id where Bridge puts it, on one line, with at most the Message-ID before it.
_INTERNAL_ID = re.compile(
    rb"(?:message-id:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)?x-pm-internal-id:[ \t]*(\S+)[ \t]*\r\n(?![ \t])",
    re.IGNORECASE,
)
IDENTITY_HEADERS = (*IDENTIFIERS, *(one.title() for one in _CANONICAL))


def identity(head: Head, headers: Headers) -> bytes:
    """16 bytes."""
    arrived = int(head.arrived.timestamp()) if head.arrived else None
    found = _by_name(headers, arrived, head.size)
    if found is not None:
        return found
    fields = [b" ".join((headers.raw(name) or b"").split()) for name in _CANONICAL]
    return _digest(b"headers", *fields, _where(arrived, head.size))


def identity_by_name(raw: bytes, arrived: int | None, size: int) -> bytes | None:
    """The same of the ``IDENTIFIERS`` alone, raw; None for a mail that has neither of them."""
    found = _INTERNAL_ID.match(raw)
    if found is not None:
        return _digest(b"internal", found[1])
    return _by_name(Headers(raw), arrived, size)


def _by_name(headers: Headers, arrived: int | None, size: int) -> bytes | None:
    internal = headers.raw("x-pm-internal-id")
    if internal:
        return _digest(b"internal", internal)
    message_id = headers.raw("message-id")
    if message_id:
        return _digest(b"message-id", message_id, _where(arrived, size))
    return None


def message_id_hash(headers: Headers, mail: bytes) -> str:
    """16 hex digits: of the Message-ID, else of the mail's identity. Part of the dedupe key."""
    raw = headers.raw("message-id")
    return hashlib.sha256(raw).hexdigest()[:16] if raw else mail.hex()[:16]


def _where(arrived: int | None, size: int) -> bytes:
    return f"{arrived} {size}".encode()


def _digest(*parts: bytes) -> bytes:
    made = hashlib.sha256()
    for part in parts:
        # With its length, so that no two lists of parts run together to the same bytes.
        made.update(len(part).to_bytes(8, "big") + part)
    return made.digest()[:16]
