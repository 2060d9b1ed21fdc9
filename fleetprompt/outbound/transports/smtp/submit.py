"""Submitting one letter over SMTP, and what each end of it means.

1. The host is resolved once, its addresses are vetted, and the connection goes to one of those.
2. TLS, then the login; without TLS only where the operator allows it.
3. ``MAIL`` and one ``RCPT`` for each recipient. The envelope is the checked list and nothing else.
4. ``DATA``: from here on a lost answer leaves doubt (RFC 5321 §6.1). Everything before, and every
   reply with a code, is definite: 4yz may be tried again, 5yz not.

Replies are told by their code alone: their text may repeat addresses and what was logged in with.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiosmtplib

from fleetprompt.errors import ErrorKind
from fleetprompt.outbound.http import ConnectFailedError, OutboundClient, RefusedError
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.smtp.letter import address
from fleetprompt.outbound.transports.smtp.server import SmtpServer

# Together below the ledger's lease.
DEADLINE_SECONDS = 40.0
_STEP_SECONDS = 20.0
_CONNECT_SECONDS = 5.0

_BUSY = "The mail server asks to come back later (code {code}); it will be tried again."
_NO_LOGIN = (
    "The mail server does not accept this user and password (code {code}). Connect it again with the "
    "ones it knows; some providers want a password made for applications."
)
_NO_TLS = "The mail server offers no STARTTLS. Use smtps://, or a server that encrypts."
_LOGIN_NOT_OFFERED = "The mail server offers no login that can be used here."
_UNREACHABLE = "The mail server could not be reached: {reason} It will be tried again."


class _Ended(Exception):  # noqa: N818 - not an error: how the submission ended
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.state)
        self.outcome = outcome


async def submit(
    client: OutboundClient,
    server: SmtpServer,
    message: bytes,
    sender: str,
    recipients: Sequence[str],
    *,
    not_after: float | None = None,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Outcome:
    """Hand the message in once. After ``not_after`` (``time.monotonic``) it is not begun any more.

    ``posted`` when the server took it for at least one recipient; the message then says how many were
    refused.
    """
    doubtful = False
    try:
        async with asyncio.timeout(deadline_seconds), _connected(client, server) as session:
            mailboxes = [address(one).addr_spec for one in (sender, *recipients)]
            utf8 = not all(one.isascii() for one in mailboxes)
            if utf8 and not session.supports_extension("smtputf8"):
                raise _rejected("validation", "The mail server takes no address outside ASCII.")
            encoding, options = ("utf-8", ["SMTPUTF8"]) if utf8 else ("ascii", [])
            if not_after is not None and time.monotonic() > not_after:
                raise _retryable("It took too long to reach the mail server.")
            await session.mail(mailboxes[0], options=options, encoding=encoding)
            refused = await _recipients(session, mailboxes[1:], encoding)
            doubtful = True
            await session.data(message)
    except _Ended as ended:
        return ended.outcome
    except aiosmtplib.SMTPSenderRefused as error:
        kind: ErrorKind = "auth" if error.code in (530, 535) else "validation"
        words = f"The mail server does not let this sender send (code {error.code})."
        return _by_code(error.code, kind, words)
    except aiosmtplib.SMTPDataError as error:
        words = f"The mail server refused the message (code {error.code})."
        return _by_code(error.code, "validation", words)
    except (aiosmtplib.SMTPException, OSError, TimeoutError):
        # Not the error's own words: they quote the server's.
        if doubtful:
            words = "The mail server's last answer was lost; it may have sent the letter."
            return Outcome("unknown", "network", words)
        reason = "The connection broke, or took too long."
        return Outcome("retryable", "network", _UNREACHABLE.format(reason=reason))
    note = f"The mail server refused {refused} of {len(recipients)} recipients." if refused else ""
    return Outcome("posted", message=note)


async def check_smtp(client: OutboundClient, server: SmtpServer) -> Outcome:
    """Whether the server takes this login; ``posted`` if so, though nothing was sent."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS), _connected(client, server):
            pass
    except _Ended as ended:
        return ended.outcome
    except (aiosmtplib.SMTPException, OSError, TimeoutError):
        reason = "The connection broke, or took too long."
        return Outcome("retryable", "network", _UNREACHABLE.format(reason=reason))
    return Outcome("posted")


@asynccontextmanager
async def _connected(client: OutboundClient, server: SmtpServer) -> AsyncIterator[aiosmtplib.SMTP]:
    """A session that may send, closed without waiting for the other side."""
    link = await _socket(client, server)
    session = aiosmtplib.SMTP(
        hostname=server.host,
        local_hostname=address_literal(link.getsockname()[0]),
        timeout=_STEP_SECONDS,
        use_tls=server.scheme == "smtps",
        start_tls=False,
        tls_context=client.ssl_context,
        sock=link,
    )
    try:
        await _opened(session, server)
        yield session
    finally:
        transport = session.transport
        session.close()
        if isinstance(transport, asyncio.Transport):
            # A TLS connection would wait for the other side's farewell.
            transport.abort()
        # The socket is the loop's until the loop has let go of it, one turn later.
        await asyncio.sleep(0)
        link.close()


async def _opened(session: aiosmtplib.SMTP, server: SmtpServer) -> None:
    try:
        await session.connect()
        await session.ehlo()
        if server.scheme == "smtp" and session.supports_extension("starttls"):
            await session.starttls(server_hostname=server.host)
            await session.ehlo()
        elif server.scheme == "smtp" and not server.plain_allowed:
            raise _rejected("validation", _NO_TLS)
        if server.login is not None:
            if not session.supported_auth_methods:
                raise _rejected("auth", _LOGIN_NOT_OFFERED)
            await session.login(*server.login)
    except aiosmtplib.SMTPAuthenticationError as error:
        raise _Ended(_by_code(error.code, "auth", _NO_LOGIN.format(code=error.code))) from None
    except aiosmtplib.SMTPResponseException as error:
        words = f"The mail server did not let us in (code {error.code})."
        raise _Ended(_by_code(error.code, "validation", words)) from None


async def _socket(client: OutboundClient, server: SmtpServer) -> socket.socket:
    try:
        addresses = await client.vetted_addresses(server.host, server.port)
    except RefusedError as error:
        raise _rejected("validation", error.reason) from None
    except ConnectFailedError as error:
        raise _retryable(_UNREACHABLE.format(reason=error.reason)) from None
    loop = asyncio.get_running_loop()
    for one in addresses:
        family = socket.AF_INET6 if ":" in one else socket.AF_INET
        link = socket.socket(family, socket.SOCK_STREAM)
        link.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(link, (one, server.port))
        except OSError:
            link.close()
        except BaseException:
            link.close()
            raise
        else:
            return link
    reason = "It does not take connections on this port."
    raise _retryable(_UNREACHABLE.format(reason=reason))


def address_literal(ip: str) -> str:
    """What a client without a name of its own calls itself (RFC 5321 §4.1.3 and §4.1.4)."""
    return f"[IPv6:{ip.partition('%')[0]}]" if ":" in ip else f"[{ip}]"


async def _recipients(session: aiosmtplib.SMTP, mailboxes: Sequence[str], encoding: str) -> int:
    """Name each recipient; how many of them were refused. All refused ends it."""
    codes = []
    for one in mailboxes:
        try:
            await session.rcpt(one, encoding=encoding)
        except aiosmtplib.SMTPRecipientRefused as error:
            codes.append(error.code)
    if len(codes) == len(mailboxes):
        # One that may be tried again is enough to try again.
        raise _Ended(_by_code(min(codes), "validation", "The mail server refused every recipient."))
    return len(codes)


def _by_code(code: int, kind: ErrorKind, words: str) -> Outcome:
    if 400 <= code < 500:
        return Outcome("retryable", "network", _BUSY.format(code=code))
    return Outcome("rejected", kind, words)


def _rejected(kind: ErrorKind, words: str) -> _Ended:
    return _Ended(Outcome("rejected", kind, words))


def _retryable(words: str) -> _Ended:
    return _Ended(Outcome("retryable", "network", words))
