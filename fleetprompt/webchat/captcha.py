"""CAPTCHAs of a vendor that a tenant chose, as a second answer to a challenge on the plain page.

hCaptcha and Turnstile have one protocol: the page gets a one-time answer from the vendor, and the server asks
the vendor's ``siteverify`` whether it holds (https://docs.hcaptcha.com/#verify-the-user-response-server-side,
https://developers.cloudflare.com/turnstile/get-started/server-side-validation/). The visitor's address is not
sent along. Off unless a tenant sets it up; the widget never shows one.
"""

import json
from dataclasses import replace
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.outbound.http import OutboundClient, OutboundError
from fleetprompt.packages.service import note_trouble
from fleetprompt.settings import Settings
from fleetprompt.vault.cipher import SealError
from fleetprompt.vault.service import Vault
from fleetprompt.webchat.access import Guest
from fleetprompt.webchat.sites import Site
from fleetprompt.webchat.tenant_settings import CaptchaVendor

ANSWER_LIMIT = 8192  # characters; hCaptcha's answers have a few thousand
PREFIX = "captcha:"
_DEADLINE_SECONDS = 5.0
_UNKNOWN_THERE = (
    "The CAPTCHA's vendor does not know what is stored here. "
    "Connect the secret that belongs to the site key."
)

Verdict = Literal["holds", "refused", "bad_secret", "unreachable"]


class Captcha(Protocol):
    """One vendor's check."""

    async def check(self, secret: str, answer: str) -> Verdict:
        """Whether the vendor gave this answer to a page of the secret's owner, and not used before."""


class Siteverify:
    """``Captcha`` by a ``siteverify`` address."""

    def __init__(self, client: OutboundClient, url: str) -> None:
        self._client, self._url = client, url

    async def check(self, secret: str, answer: str) -> Verdict:
        """One request; what the vendor says of hosts and times is left to its own settings."""
        if not 0 < len(answer) <= ANSWER_LIMIT or not answer.isascii():
            return "refused"
        try:
            reply = await self._client.request(
                "POST",
                self._url,
                headers={"content-type": "application/x-www-form-urlencoded"},
                content=urlencode({"secret": secret, "response": answer}).encode(),
                deadline_seconds=_DEADLINE_SECONDS,
            )
        except OutboundError:
            return "unreachable"
        told = _object(reply.body) if reply.status == 200 or reply.status == 400 else None
        if told is None:
            return "unreachable"
        if told.get("success") is True:
            return "holds"
        codes = told.get("error-codes")
        secret_codes = {"invalid-input-secret", "missing-input-secret"}
        return (
            "bad_secret"
            if isinstance(codes, list) and secret_codes & {*map(str, codes)}
            else "refused"
        )


def vendor_url(settings: Settings, vendor: CaptchaVendor) -> str:
    """Where a vendor's answers are checked."""
    return settings.hcaptcha_url if vendor == "hcaptcha" else settings.turnstile_url


def checked_secret(secret: str) -> str:
    """A CAPTCHA's secret as it can be stored; InvalidError for what is none."""
    found = secret.strip()
    if not 0 < len(found) <= 256 or not found.isascii() or not found.isprintable() or " " in found:
        raise InvalidError("The CAPTCHA's secret is one word, as its vendor shows it.")
    return found


def offered(site: Site) -> dict[str, str] | None:
    """What a plain page shows: the vendor and its public key; None where the tenant has none."""
    chat = site.chat.settings
    vendor = chat.captcha_vendor
    if vendor is None or chat.captcha_site_key is None:
        return None
    return {"vendor": vendor, "site_key": chat.captcha_site_key}


async def vouched(guest: Guest, client: OutboundClient, vault: Vault, settings: Settings) -> Guest:
    """The guest as its site's CAPTCHA sees it; asked outside of any transaction, and only with an answer.

    A vendor that cannot be reached says nothing: the visitor is then asked for work, as without it. A
    secret that the vendor does not know shows on the installation.
    """
    chat = guest.site.chat
    vendor, secret_id = chat.settings.captcha_vendor, chat.settings.captcha_credential_id
    answer = guest.answer or ""
    if vendor is None or secret_id is None or not answer.startswith(PREFIX):
        return guest
    try:
        secret = await vault.open_credential(guest.site.tenant, secret_id)
    except (SealError, NotFoundError):
        return guest
    captcha: Captcha = Siteverify(client, vendor_url(settings, vendor))
    verdict = await captcha.check(secret.reveal(), answer.removeprefix(PREFIX))
    if verdict == "bad_secret" and chat.installation_id is not None:
        async with vault.database.tenant(guest.site.tenant.schema) as session:
            await note_trouble(session, chat.installation_id, "auth", _UNKNOWN_THERE)
    return replace(guest, solved=verdict == "holds")


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
