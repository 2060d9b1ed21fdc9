"""A service account that may act as users of a Workspace, and its tokens for one of them.

The assertion is signed by google-auth and sent by our own client: google-auth's transports are
synchronous, follow redirects and know no vetted addresses. Only ``gmail.compose`` is asked for: a
scope that the delegation does not cover makes the whole request fail, and this one covers drafts and
their sending (research/mattermost_digest.md, Gmail).

No answer's body is shown or kept; a token lives as long as one letter's way.
"""

import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec
from google.auth import crypt, jwt

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.http import OutboundClient, OutboundError
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.gmail.answers import failure, token_refusal, whole
from fleetprompt.settings import Settings

SCOPE = "https://www.googleapis.com/auth/gmail.compose"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_SECONDS = 600
_WANTED = (
    "Give Gmail's address as url, and as token the whole JSON key file of a service account that has "
    "domain-wide delegation."
)


class _Granted(msgspec.Struct):
    access_token: str


@dataclass(frozen=True, repr=False)
class GmailAccount:
    """The account's name, the interface's address, and the key that signs for it."""

    address: str
    name: str
    token_url: str
    _signer: crypt.Signer

    def __repr__(self) -> str:
        """``GmailAccount('digest@project.iam.gserviceaccount.com')``, without the key."""
        return f"GmailAccount({self.name!r})"

    def check_addresses(self, settings: Settings) -> None:
        """InvalidError where the key would be used elsewhere than at Google (or the operator's own)."""
        if self.address != settings.gmail_url.rstrip("/"):
            raise InvalidError(f"Gmail's address is {settings.gmail_url}.")
        if self.token_url != settings.google_token_url:
            raise InvalidError(f"The key's token_uri must be {settings.google_token_url}.")

    async def token(self, client: OutboundClient, subject: str | None) -> str | Outcome:
        """A token to act as ``subject``, or as the account itself; an Outcome never ``unknown``."""
        now = int(time.time())
        claims = {
            "iss": self.name,
            "scope": SCOPE,
            "aud": self.token_url,
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
        } | ({"sub": subject} if subject else {})
        signed: bytes = jwt.encode(self._signer, claims)  # type: ignore[no-untyped-call]
        assertion = signed.decode("ascii")
        try:
            reply = await client.request(
                "POST",
                self.token_url,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                content=urlencode({"grant_type": _GRANT, "assertion": assertion}).encode(),
            )
        except OutboundError as error:
            return failure(error).harmless()
        granted = whole(reply, _Granted) if reply.status == 200 else None
        return granted.access_token if granted else token_refusal(reply)


def unseal_gmail(sealed: str) -> GmailAccount:
    """The account of a JSON text with ``url`` and the key file as ``token``.

    Raises ``InvalidError`` that says what to change and repeats nothing of it.
    """
    try:
        kept = json.loads(sealed)
        url, key = kept["url"], json.loads(kept["token"])
        name, token_url = key["client_email"], key["token_uri"]
        signer = _signer(key)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidError(_WANTED) from None
    if not all(isinstance(text, str) and text.isprintable() for text in (url, name, token_url)):
        raise InvalidError(_WANTED)
    return GmailAccount(url.strip().rstrip("/"), name, token_url, signer)


def _signer(key: dict[str, Any]) -> crypt.Signer:
    if key.get("type") != "service_account":
        raise ValueError("not a service account's key")
    signer: crypt.Signer = crypt.RSASigner.from_service_account_info(key)  # type: ignore[no-untyped-call]
    return signer
