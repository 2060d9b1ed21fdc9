"""The signals that tell of mail: seed §7 and §8, and nothing beyond what the profile allows."""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from fleetprompt_edge.clock import stamp
from fleetprompt_edge.envelope import Signal, Writer
from fleetprompt_edge.imap.session import Head
from fleetprompt_edge.log import logger
from fleetprompt_edge.mail import snippet as texts
from fleetprompt_edge.mail.classify import CLASSIFYING_HEADERS
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.identity import IDENTITY_HEADERS, message_id_hash
from fleetprompt_edge.mail.structure import Part, decoded_size
from fleetprompt_edge.profile import Privacy
from fleetprompt_edge.redaction import SECRET_NAME, masked, masked_value

MOST_ATTACHMENTS = 100
_ADDRESS_HEADERS = frozenset(
    {
        "from",
        "to",
        "cc",
        "bcc",
        "reply-to",
        "sender",
        "return-path",
        "delivered-to",
        "x-original-to",
    }
)
_REFERENCE_HEADERS = frozenset({"references", "in-reply-to"})
_LONGEST_FOLDER = 200  # characters of a folder's name in a dedupe key of at most 512


@dataclass(frozen=True, slots=True)
class Mail:
    """What was read of one message: as little as its signal needs."""

    folder: str
    identity: bytes
    head: Head
    headers: Headers
    parts: list[Part] = field(default_factory=list)
    text: str | None = None
    classification: dict[str, Any] | None = None
    complete: bool = True


def wanted_headers(privacy: Privacy) -> list[str]:
    """The header fields to ask Bridge for: those that are sent, and those that are looked at only."""
    names = ("From", "To", "Cc", "Subject", *IDENTITY_HEADERS, *CLASSIFYING_HEADERS)
    found: dict[str, str] = {}
    for name in (*names, *privacy.send_headers):
        found.setdefault(name.lower(), name)
    return list(found.values())


class MailSignals:
    """Tells of mail. ``address_key``: what addresses are hashed with, if the profile says so.

    ``own_addresses`` are those of the mailbox's owner; ``with_body`` is true only if the profile names
    the tenant that bodies may go to and the key is that tenant's.
    """

    def __init__(
        self,
        writer: Writer,
        address_key: bytes,
        own_addresses: Sequence[str],
        *,
        with_body: bool,
    ) -> None:
        self._writer = writer
        self._privacy = writer.profile.privacy
        self._most_bytes = writer.profile.limits.max_payload_size_bytes
        self._key = address_key
        self._own = frozenset(one.lower() for one in own_addresses)
        self._with_body = with_body

    def dedupe_key(self, mail: Mail, is_taken: Callable[[str], bool]) -> str:
        """``email_in:{tenant}:{connector_id}:{folder}:{imap_uid}:{message_id_hash}`` (seed §7.3).

        After UIDVALIDITY changed, another mail may have the same folder, UID and Message-ID; then the
        mail's identity takes the place of the hash.
        """
        folder = mail.folder
        if len(folder) > _LONGEST_FOLDER:
            folder = "sha256-" + hashlib.sha256(folder.encode()).hexdigest()[:32]
        hashed = message_id_hash(mail.headers, mail.identity)
        found = self._writer.key("email_in", folder, mail.head.uid, hashed)
        if is_taken(found):
            found = self._writer.key("email_in", folder, mail.head.uid, mail.identity.hex())
        return found

    def received(
        self, mail: Mail, dedupe_key: str, now: datetime, *, backfill: bool = False
    ) -> Signal:
        """``email.inbound.received``, cut to the size that the profile allows."""
        arrived = mail.head.arrived or now
        try:
            data = self._data(mail, arrived)
        except Exception:  # noqa: BLE001 - what strangers write must not stop the connector
            logger.exception("a mail could not be told in full", extra={"uid": mail.head.uid})
            bare = replace(mail, headers=Headers(b""), parts=[], text=None, complete=False)
            data = self._data(bare, arrived)
        if backfill:
            data["backfill"] = True
        shrinking = _shrinking(data)
        while True:
            signal = self._writer.write(
                "email.inbound.received",
                arrived,
                masked_value(data),
                dedupe_key=dedupe_key,
                correlation_id=f"mail:{mail.identity.hex()}",
                subject=("email", mail.identity.hex()),
            )
            if len(signal.body.encode()) <= self._most_bytes or not next(shrinking, False):
                return signal

    def processed(self, identity: bytes, folder: str, now: datetime) -> Signal:
        """``email.inbound.processed``: a mail that was told has got a label that means so."""
        return self._writer.write(
            "email.inbound.processed",
            now,
            {"label": folder},
            dedupe_key=self._writer.key("email_processed", identity.hex()),
            correlation_id=f"mail:{identity.hex()}",
            subject=("email", identity.hex()),
        )

    def unreadable(self, folder: str, uidvalidity: int, uid: int, now: datetime) -> Signal:
        """``email.inbound.failed``: Bridge does not hand out this mail."""
        identity = unreadable_identity(folder, uidvalidity, uid)
        return self._writer.write(
            "email.inbound.failed",
            now,
            {
                "message": {"folder": folder, "imap_uid": uid, "uidvalidity": uidvalidity},
                "error_kind": "unknown",
                "error_message": "Bridge did not hand out this mail, asked several times.",
            },
            dedupe_key=self._writer.key("email_in_failed", identity.hex()),
            correlation_id=f"mail:{identity.hex()}",
            subject=("email", identity.hex()),
        )

    def _data(self, mail: Mail, arrived: datetime) -> dict[str, Any]:
        headers, flags = mail.headers, mail.head.flags
        sender = headers.addresses("from")
        allowed = {name.lower() for name in self._privacy.send_headers}
        text = mail.text
        snippet = None
        if text is not None and self._privacy.send_snippet:
            # Masked before it is cut: half a secret has no shape that anybody would know.
            snippet = texts.snippet(masked(text), self._privacy.snippet_max_characters)
        data: dict[str, Any] = {
            "message": {
                "message_id": headers.message_id(),
                "imap_uid": mail.head.uid,
                "folder": mail.folder,
                "internal_date": stamp(arrived),
                "from": self._address(sender[0]) if sender else None,
                "to": [self._address(one) for one in headers.addresses("to")],
                "cc": [self._address(one) for one in headers.addresses("cc")],
                "subject": headers.text("subject") if "subject" in allowed else None,
                "snippet": snippet,
                "headers": self._headers(headers),
            },
            "flags": {name: f"\\{name}" in flags for name in ("seen", "answered", "flagged")},
            "attachments": self._attachments(mail.parts),
            "direction": "self" if sender and sender[0].lower() in self._own else "inbound",
        }
        if mail.classification:
            data["classification"] = self._classification(mail.classification)
        if not mail.complete:
            data["incomplete"] = True
        if self._with_body and text is not None:
            data["body_text"] = texts.body(masked(text), self._privacy.body_max_characters)
        return data

    def _headers(self, headers: Headers) -> dict[str, str]:
        found = {}
        for name in self._privacy.send_headers:
            value = headers.text(name)
            if value is None or SECRET_NAME.match(name):
                continue
            if name.lower() in _REFERENCE_HEADERS:
                value = " ".join(headers.references(name)[-20:])
            elif name.lower() in _ADDRESS_HEADERS and self._privacy.hash_addresses:
                value = ", ".join(self._address(one) for one in headers.addresses(name))
            found[name] = value
        return found

    def _attachments(self, parts: list[Part]) -> list[dict[str, Any]]:
        if self._privacy.attachment_mode == "none":
            return []
        return [
            {
                "filename": part.filename,
                "content_type": part.content_type[:255],
                "size_bytes": decoded_size(part),
            }
            for part in parts
            if part.attached
        ][:MOST_ATTACHMENTS]

    def _classification(self, found: dict[str, Any]) -> dict[str, Any]:
        if "recipient" in found:
            return {**found, "recipient": self._address(found["recipient"])}
        return found

    def _address(self, address: str) -> str:
        if not self._privacy.hash_addresses:
            return address
        return "hmac:" + hmac.digest(self._key, address.lower().encode(), "sha256").hex()[:32]


def unreadable_identity(folder: str, uidvalidity: int, uid: int) -> bytes:
    """What stands for a mail of which nothing could be read."""
    return hashlib.sha256(f"place {uidvalidity} {uid} {folder}".encode()).digest()[:16]


def _shrinking(data: dict[str, Any]) -> Iterator[bool]:
    """Leave out what can best be missed, one thing a step; ``data["truncated"]`` names it."""
    message = data["message"]

    def note(name: str) -> bool:
        data.setdefault("truncated", []).append(name)
        return True

    if data.pop("body_text", None) is not None:
        yield note("body_text")
    if len(data["attachments"]) > 10:
        del data["attachments"][10:]
        yield note("attachments")
    if message["headers"]:
        message["headers"] = {}
        yield note("headers")
    for name in ("cc", "to"):
        if len(message[name]) > 20:
            del message[name][20:]
            yield note(name)
    if message["snippet"]:
        message["snippet"] = None
        yield note("snippet")
    if data["attachments"]:
        data["attachments"] = []
        yield note("attachments")
    for name in ("cc", "to"):
        if message[name]:
            message[name] = []
            yield note(name)
    for name in ("subject", "message_id"):
        if message[name]:
            message[name] = message[name][:100]
            yield note(name)
