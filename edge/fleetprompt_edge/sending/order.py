"""A mail that is asked for: its params checked here too, and against the owner's own rules.

The platform checks as well; whoever runs the connector need not trust it with their mailbox (trap 38).
"""

import hashlib
import json
import re
from typing import Any, NamedTuple

from fleetprompt_edge import kinds
from fleetprompt_edge.profile import Profile

_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,500}@[!-;=?A-~]{1,480}>")
_LISTS = ("to", "cc", "bcc")
_TEXTS = ("text_body", "html_body")
_KNOWN = {*_LISTS, *_TEXTS, "from", "account", "subject", "reply_to_message_id"}


class Order(NamedTuple):
    """One mail to send. Addresses stand as they were given, in headers and envelope alike (trap 40)."""

    sender: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    subject: str
    text: str | None
    html: str | None
    reply_to: str | None

    @property
    def recipients(self) -> tuple[str, ...]:
        """Everybody who gets it."""
        return self.to + self.cc + self.bcc

    def likeness(self) -> bytes:
        """A digest of what Bridge knows a repeated mail by (research/edge.md §0.1)."""
        everybody = sorted(self.recipients)
        return digest([*self._replace(to=tuple(self.to), bcc=()), everybody])


class UnfitOrderError(Exception):
    """A mail that must not be sent; the message is for people and repeats none of its content."""


def digest(value: Any) -> bytes:
    """16 bytes that stand for a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()[:16]


def order_of(params: dict[str, Any], profile: Profile) -> Order:
    """The mail; ``UnfitOrderError`` if the params or the profile's rules do not allow it."""
    strange = set(params) - _KNOWN
    if strange:
        raise UnfitOrderError(f"There are {len(strange)} params that email.send does not have.")
    account = params.get("account")
    if account is not None and not _same(account, profile.bridge.username):
        raise UnfitOrderError("This connector has another mail account.")
    to, cc, bcc = (_addresses(name, params.get(name) or []) for name in _LISTS)
    everybody = [one.lower() for one in (*to, *cc, *bcc)]
    if not to:
        raise UnfitOrderError("to must have an address.")
    if len(everybody) > profile.sending.max_recipients:
        raise UnfitOrderError(
            f"More than {profile.sending.max_recipients} recipients are not allowed."
        )
    if len(everybody) > profile.sending.max_recipients_per_hour:
        raise UnfitOrderError("It has more recipients than may be written to in an hour.")
    if len(set(everybody)) < len(everybody):
        raise UnfitOrderError("A recipient is there twice.")
    subject = params.get("subject", "")
    if not isinstance(subject, str) or not (subject.isprintable() and len(subject) <= 500):
        raise UnfitOrderError("subject must be one line of at most 500 characters.")
    text, html = (_body(name, params.get(name)) for name in _TEXTS)
    if not any(one and one.strip() for one in (text, html)):
        raise UnfitOrderError("text_body or html_body must say something.")
    reply_to = params.get("reply_to_message_id")
    if reply_to is not None and not (isinstance(reply_to, str) and _MESSAGE_ID.fullmatch(reply_to)):
        raise UnfitOrderError("reply_to_message_id is no Message-ID.")
    sender = _sender(params.get("from"), profile)
    return Order(sender, to, cc, bcc, subject, text, html, reply_to)


def _sender(given: Any, profile: Profile) -> str:
    wanted = profile.bridge.username if given is None else given
    for allowed in profile.sending.allowed_from_addresses:
        if _same(wanted, allowed):
            return allowed
    raise UnfitOrderError("sending.allowed_from_addresses does not have the address to send as.")


def _same(one: Any, other: str) -> bool:
    return isinstance(one, str) and one.casefold() == other.casefold()


def _addresses(name: str, given: Any) -> tuple[str, ...]:
    if not isinstance(given, list):
        raise UnfitOrderError(f"{name} must be a list of addresses.")
    try:
        return tuple(_address(one) for one in given)
    except ValueError:
        raise UnfitOrderError(f"{name} has what is no mail address in ASCII.") from None


def _address(given: Any) -> str:
    found: str = kinds.address(given)
    if re.search(r"[\"(),:;<>\[\\\]]", found):
        raise ValueError
    return found


def _body(name: str, given: Any) -> str | None:
    if given is None:
        return None
    try:
        if isinstance(given, str) and "\x00" not in given:
            given.encode()
            return given
    except UnicodeEncodeError:
        pass
    raise UnfitOrderError(f"{name} must be text.")
