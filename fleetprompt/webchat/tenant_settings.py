"""What a tenant has set for the chat of all its sites: the configuration of the package ``website_chat``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.packages.models import Installation
from fleetprompt.packages.service import INSTALLED
from fleetprompt.webchat.site_settings import Notify

PACKAGE = "website_chat"

Mode = Literal["native", "charla_embed"]
Held = Literal["all", "words", "nothing"]
CaptchaVendor = Literal["hcaptcha", "turnstile"]


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """Every option of the package (its ``manifest.toml`` describes them); each has a default."""

    mode: Mode = "native"
    notify_installation_id: UUID | None = None
    notify_channel: str | None = None
    email_to: tuple[str, ...] = ()
    email_every_conversation: bool = False
    email_via: Literal["smtp", "connector"] = "smtp"
    email_sender: str | None = None
    smtp_credential_id: UUID | None = None
    connector_id: UUID | None = None
    signals_hold: Held = "all"
    notices_hold: Held = "all"
    reply_drafts: bool = False
    captcha: Literal["off", "hcaptcha", "turnstile"] = "off"
    captcha_site_key: str | None = None
    captcha_credential_id: UUID | None = None
    charla_script_url: str | None = None
    charla_object: str = "CharlaSettings"
    charla_key_name: str = "property_key"

    @property
    def notify(self) -> Notify | None:
        """Where a conversation's first message is posted, unless its site says otherwise."""
        if self.notify_installation_id is None:
            return None
        return Notify(installation_id=self.notify_installation_id, channel=self.notify_channel)

    @property
    def captcha_vendor(self) -> CaptchaVendor | None:
        """Whose CAPTCHA the plain page shows; None unless everything for it is there."""
        if self.captcha == "off" or not self.captcha_site_key or not self.captcha_credential_id:
            return None
        return self.captcha

    def as_json(self) -> dict[str, Any]:
        """Every option with its value, as it is stored with the installation and checksummed."""
        stored = asdict(self)
        for name in _IDS:
            stored[name] = None if stored[name] is None else str(stored[name])
        return {**stored, "email_to": list(self.email_to)}

    def missing(self) -> tuple[str, ...]:
        """Nothing: a site needs no connection to take messages."""
        return ()

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> "ChatSettings":
        """What ``as_json`` gave; options that are not there have their defaults."""
        known = {one.name for one in fields(cls)}
        given = {name: value for name, value in stored.items() if name in known}
        for name in _IDS & given.keys():
            given[name] = None if given[name] is None else UUID(given[name])
        if "email_to" in given:
            given["email_to"] = tuple(given["email_to"])
        return cls(**given)


_IDS = frozenset(
    {"notify_installation_id", "smtp_credential_id", "connector_id", "captcha_credential_id"}
)


@dataclass(frozen=True, slots=True)
class TenantChat:
    """The tenant's settings; ``installation_id`` is None where the package is not installed.

    ``switched_off``: somebody disabled the package, so that no site of the tenant answers.
    """

    settings: ChatSettings = ChatSettings()
    installation_id: UUID | None = None
    switched_off: bool = False


async def tenant_chat(session: AsyncSession) -> TenantChat:
    """The settings of the tenant whose transaction this is."""
    found: Installation | None = await session.scalar(
        select(Installation).where(Installation.package == PACKAGE)
    )
    if found is None:
        return TenantChat()
    if found.state not in INSTALLED:
        return TenantChat(installation_id=found.id, switched_off=found.state == "disabled")
    return TenantChat(ChatSettings.of_json(found.config), found.id)
