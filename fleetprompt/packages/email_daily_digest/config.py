"""The e-mail digest's configuration: what it adds to every digest's, and how it is checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.transports.smtp.letter import address
from fleetprompt.packages.digest.config import Check, DigestConfig, checked, credential

GMAIL = "gmail"
SMTP = "smtp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(DigestConfig):
    """A checked configuration. ``sender`` None means the first active admin."""

    gmail_credential_id: UUID | None = None
    smtp_credential_id: UUID | None = None
    sender: str | None = None
    max_lines: int = 80
    empty_window: Literal["post", "skip"] = "skip"

    def missing(self) -> tuple[str, ...]:
        """Options without which nothing can be sent: one of the two connections is enough."""
        connected = self.gmail_credential_id or self.smtp_credential_id
        return () if connected else ("gmail_credential_id", "smtp_credential_id")


def validate(config: Mapping[str, Any]) -> Config:
    """The typed configuration of a mapping that the manifest's schema has accepted; InvalidError."""
    return checked(Config, config, _CHECKS)


def _sender(value: str) -> str | None:
    if not value.strip():
        return None
    try:
        return address(value.strip()).addr_spec
    except ValueError as error:
        raise InvalidError("Must be an e-mail address, such as ops@example.org.") from error


_CHECKS: Mapping[str, Check] = {
    "gmail_credential_id": credential,
    "smtp_credential_id": credential,
    "sender": _sender,
}
