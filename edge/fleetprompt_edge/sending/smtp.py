"""Handing a mail to Bridge over SMTP, and what its answers mean.

Bridge answers 554 5.0.0 to every failure at DATA and 454 to a wrong password (research/edge.md §0.2), so that
the code says nothing and its words decide. No words of it are passed on.
"""

import smtplib
import ssl
from collections.abc import Sequence
from typing import Literal, NamedTuple

from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.clock import Clock
from fleetprompt_edge.errors import (
    BridgeDownError,
    BridgeLoginError,
    BridgeTlsError,
    CertificateError,
    EdgeError,
    ErrorKind,
)
from fleetprompt_edge.imap.tls import bridge_context, check_pin
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.running.door import GRACE

Became = Literal["taken", "not_taken", "refused", "doubtful"]
_REFUSALS = ("invalid return path", "cannot send from", "invalid recipient", "not a valid")
_PAUSES = ("too many failed requests",)  # Bridge's own pause of 20 s; Proton was not asked
_LIMITS = ("too many", "limit", "429", "quota")
_PAUSE = 30.0  # seconds


class Delivery(NamedTuple):
    """What became of a mail. ``not_taken``: certainly not sent, another try may help; ``refused``: and none
    will; ``doubtful``: it may have been sent. ``said_no``: Bridge itself told of a failure."""

    became: Became
    kind: ErrorKind = "unknown"
    message: str = ""
    retry_after: float | None = None
    said_no: bool = False


class Courier:
    """Hands over one mail on a connection of its own.

    A login that was refused is not tried again before a time that grows (trap 3), and is told as a wrong
    password only if it lasts: Bridge refuses it too while it starts (trap 26).
    """

    def __init__(self, profile: Profile, password: str, clock: Clock) -> None:
        self._clock = clock
        self._backoff = Backoff(clock, first=20, longest=900, proven=0)
        self._refused_since: float | None = None
        self._closed_until = 0.0
        self._options = profile.bridge.smtp
        self._pin = profile.bridge.certificate_sha256
        self._user = profile.bridge.username
        self._password = password

    def hand_over(self, sender: str, recipients: Sequence[str], content: bytes) -> Delivery:
        """Send; never raises for what Bridge or the network does."""
        if self._refused_since is not None and self._clock.monotonic() < self._closed_until:
            return self._refusal(self._refused_since)
        try:
            client = self._open()
        except smtplib.SMTPAuthenticationError:
            now = self._clock.monotonic()
            self._refused_since = now if self._refused_since is None else self._refused_since
            self._closed_until = now + self._backoff.failed()
            return self._refusal(self._refused_since)
        except EdgeError as error:
            return Delivery("not_taken", error.kind, error.message)
        except (smtplib.SMTPException, OSError):
            return Delivery("not_taken", "network", "Bridge's SMTP server cannot be reached.")
        self._refused_since = None
        self._backoff.worked()
        try:
            return self._transact(client, sender, recipients, content)
        finally:
            client.close()

    def try_login(self) -> None:
        """Log in and out, sending nothing; an ``EdgeError`` says what is in the way."""
        try:
            self._open().close()
        except smtplib.SMTPAuthenticationError:
            raise BridgeLoginError(
                "Bridge's SMTP server refuses the login.",
                remedy="Compare user name and password with those that Bridge shows for the account.",
            ) from None
        except (smtplib.SMTPException, OSError):
            raise BridgeDownError(
                "Bridge's SMTP server cannot be reached.",
                remedy="Compare bridge.smtp.port and bridge.smtp.tls with Bridge's settings.",
            ) from None

    def _refusal(self, since: float) -> Delivery:
        now = self._clock.monotonic()
        kind: ErrorKind = "network" if now - since < GRACE else "auth"
        wait = max(1.0, self._closed_until - now)
        return Delivery("not_taken", kind, "Bridge refused the login for sending.", wait)

    def _open(self) -> smtplib.SMTP:
        if not (self._user + self._password).isascii():
            # What Bridge would say; SMTP has no way to ask it.
            raise smtplib.SMTPAuthenticationError(454, b"")
        where = (self._options.host, self._options.port)
        context = bridge_context(self._pin)
        implicit = self._options.tls == "implicit"
        client: smtplib.SMTP
        try:
            if implicit:
                client = smtplib.SMTP_SSL(
                    *where, timeout=self._options.timeout_seconds, context=context
                )
            else:
                client = smtplib.SMTP(*where, timeout=self._options.timeout_seconds)
        except ssl.SSLError as error:
            raise _tls_failure(error) from None
        try:
            if not implicit:
                client.ehlo()
                if not client.has_extn("starttls"):
                    raise BridgeTlsError(
                        "Bridge's SMTP server offers no encryption; nothing was sent."
                    )
                client.starttls(context=context)
            check_pin(client.sock, self._pin)  # type: ignore[arg-type]  # connected by now
            client.login(self._user, self._password)
        except ssl.SSLError as error:
            client.close()
            raise _tls_failure(error) from None
        except BaseException:
            client.close()
            raise
        return client

    def _transact(
        self, client: smtplib.SMTP, sender: str, recipients: Sequence[str], content: bytes
    ) -> Delivery:
        try:
            answers = [client.mail(sender), *(client.rcpt(one) for one in recipients)]
        except (smtplib.SMTPException, OSError):
            return Delivery("not_taken", "network", "Bridge hung up before it was given the mail.")
        for code, words in answers:
            if code >= 300:
                return _before_data(code, words)
        try:
            code, words = client.data(content)
        except smtplib.SMTPDataError as error:
            # The answer to DATA itself: the mail was not given yet.
            return _before_data(error.smtp_code, _bytes(error.smtp_error))
        except (smtplib.SMTPException, OSError):
            return Delivery("doubtful", "network", "Bridge hung up while it was given the mail.")
        return Delivery("taken") if code == 250 else _after_data(code, words)


def _tls_failure(error: ssl.SSLError) -> EdgeError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return CertificateError("Bridge's certificate is not one that an authority vouches for.")
    return BridgeTlsError("Bridge's SMTP server does not speak TLS as expected.")


def _before_data(code: int, words: bytes) -> Delivery:
    if code >= 500 and not _has(words, _LIMITS):
        return Delivery("refused", "validation", f"Bridge refused sender or recipient ({code}).")
    return Delivery("not_taken", "network", f"Bridge asks to try again later ({code}).")


def _after_data(code: int, words: bytes) -> Delivery:
    if _has(words, _REFUSALS):
        return Delivery("refused", "validation", "Bridge may not send as or to that address.")
    if _has(words, _PAUSES):
        return Delivery("not_taken", "rate_limit", "Bridge pauses after failures.", _PAUSE)
    if _has(words, _LIMITS):
        message = "Bridge or Proton limits how much is sent."
        return Delivery("doubtful", "rate_limit", message, 60.0, said_no=True)
    message = f"Bridge could not send the mail ({code})."
    return Delivery("doubtful", "network", message, said_no=True)


def _has(words: bytes, table: Sequence[str]) -> bool:
    text = words.decode("utf-8", "replace").lower()
    return any(one in text for one in table)


def _bytes(words: bytes | str) -> bytes:
    return words.encode() if isinstance(words, str) else words
