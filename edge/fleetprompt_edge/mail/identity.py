"""Which mail a message is, whatever folder, UID or UIDVALIDITY it is found under.

1. ``X-Pm-Internal-Id``: Proton's own id; stays over folders, resyncs and a new Bridge.
2. Else Message-ID with the time of arrival and the size: different mails may share a Message-ID.
3. Else a digest of the fields that say what the mail is, with time of arrival and size.

``X-Pm-Gluon-Id`` changes with each resync and is never part of it (research/edge.md §2.6, trap 16).
"""

import hashlib

from fleetprompt_edge.imap.session import Head
from fleetprompt_edge.mail.headers import Headers

_CANONICAL = ("from", "to", "cc", "subject", "date", "reply-to")
IDENTITY_HEADERS = ("X-Pm-Internal-Id", "Message-ID", *(one.title() for one in _CANONICAL))


def identity(head: Head, headers: Headers) -> bytes:
    """16 bytes."""
    internal = headers.raw("x-pm-internal-id")
    if internal:
        return _digest(b"internal", internal)
    arrived = int(head.arrived.timestamp()) if head.arrived else None
    where = f"{arrived} {head.size}".encode()
    message_id = headers.raw("message-id")
    if message_id:
        return _digest(b"message-id", message_id, where)
    fields = [b" ".join((headers.raw(name) or b"").split()) for name in _CANONICAL]
    return _digest(b"headers", *fields, where)


def message_id_hash(headers: Headers, mail: bytes) -> str:
    """16 hex digits: of the Message-ID, else of the mail's identity. Part of the dedupe key."""
    raw = headers.raw("message-id")
    return hashlib.sha256(raw).hexdigest()[:16] if raw else mail.hex()[:16]


def _digest(*parts: bytes) -> bytes:
    made = hashlib.sha256()
    for part in parts:
        # With its length, so that no two lists of parts run together to the same bytes.
        made.update(len(part).to_bytes(8, "big") + part)
    return made.digest()[:16]
