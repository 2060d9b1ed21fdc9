"""A letter: its parts, and the bytes that they make for a sender and recipients.

The same letter to the same people is the same bytes: boundaries, Message-ID and date come from the
letter. ``token`` stands in the header ``X-FleetPrompt-Token``, in the Message-ID and wherever the text
puts it: Gmail replaces Message-IDs (research/mattermost_digest.md, Gmail), and headers do not
outlive every forwarding.
"""

from dataclasses import dataclass, field
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8

TOKEN_HEADER = "X-FleetPrompt-Token"  # noqa: S105 - a header's name


@dataclass(frozen=True, slots=True)
class Audience:
    """Who a letter is from and who it goes to; ``sender`` None where there is nobody."""

    sender: str | None
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG that the HTML shows as ``cid:<name>``."""

    name: str
    png: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Letter:
    """What is written; ``date`` is when, and ``token`` what the letter is known by afterwards."""

    token: str
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)
    date: datetime
    picture: Picture | None = None

    def compose(self, audience: Audience) -> bytes:
        """The message as RFC 5322 bytes, lines ended by CRLF.

        Raises ``ValueError`` for an address or subject that cannot stand in a header, such as one
        with a line break (trap 39).
        """
        if audience.sender is None or not audience.recipients:
            raise ValueError("a letter needs a sender and somebody who gets it")
        sender = address(audience.sender, "FleetPrompt")
        recipients = tuple(address(one) for one in audience.recipients)
        ascii_alone = all(one.addr_spec.isascii() for one in (sender, *recipients))
        # No encoding stands for an address: such a letter has its headers in UTF-8 (RFC 6532).
        message = EmailMessage(policy=SMTP if ascii_alone else SMTPUTF8)
        message["Subject"] = self.subject
        message["From"] = sender
        message["To"] = recipients
        message["Date"] = self.date
        message["Message-ID"] = f"<fleetprompt.{self.token}@{sender.domain}>"
        message[TOKEN_HEADER] = self.token
        # No out-of-office answers (RFC 3834, and what Exchange reads).
        message["Auto-Submitted"] = "auto-generated"
        message["X-Auto-Response-Suppress"] = "All"
        message.set_content(self.text, cte="quoted-printable")
        message.add_alternative(self.html, subtype="html", cte="quoted-printable")
        if self.picture is not None:
            page = message.get_payload(1)
            assert isinstance(page, EmailMessage)  # noqa: S101 - it was just added
            page.add_related(
                self.picture.png,
                maintype="image",
                subtype="png",
                cid=f"<{self.picture.name}>",
                disposition="inline",
                filename=f"{self.picture.name}.png",
            )
        for number, part in enumerate(message.walk()):
            if part.is_multipart():
                part.set_boundary(f"fleetprompt-{number}-{self.token}")
        return message.as_bytes()


def address(text: str, name: str = "") -> Address:
    """The address with its domain in ASCII; ValueError if it is none."""
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain or not text.isprintable():
        raise ValueError("not an e-mail address")
    try:
        return Address(name, local, domain.encode("idna").decode("ascii").lower())
    except UnicodeError:
        raise ValueError("not an e-mail address") from None


def same_address(text: str) -> str:
    """What equal addresses have in common: domain in ASCII, everything in lower case."""
    try:
        return address(text).addr_spec.lower()
    except ValueError:
        return text.lower()
