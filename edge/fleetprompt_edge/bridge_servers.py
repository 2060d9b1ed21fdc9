"""Bridge's servers: finding them on this machine, the certificate that they show, a session.

Bridge listens on 127.0.0.1 and takes the next free port from its first choice (research/edge.md §2.1).
The certificate is looked at without a name or password, for the owner to compare.
"""

import imaplib
import socket
import ssl
from typing import NamedTuple

from fleetprompt_edge.errors import BridgeDownError, CertificateError
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.imap.tls import fingerprint
from fleetprompt_edge.mail.signals import wanted_headers
from fleetprompt_edge.profile import Imap, Profile

HOST = "127.0.0.1"
FIRST_IMAP_PORT = 1143
FIRST_SMTP_PORT = 1025
NEAR = 11  # ports that Bridge may have taken, beginning with its first choice
IMAP_GREETING = b"* OK"
SMTP_GREETING = b"220"
_SECONDS = 2.0
# IDLE goes on for so long before the folder is looked at anyway, which is also when a dead connection
# and a backfill that was asked for are noticed.
_IDLE_SECONDS = 60.0


class Place(NamedTuple):
    """Where a server of Bridge's was found, and its connection mode."""

    port: int
    tls: str


def knock(profile: Profile, password: str) -> BridgeSession:
    """A session with Bridge, logged in, as the profile says."""
    session = BridgeSession(
        profile.bridge.imap,
        profile.bridge.certificate_sha256,
        wanted_headers(profile.privacy),
        idle_seconds=_IDLE_SECONDS if profile.mailbox.idle else 0.0,
    )
    try:
        session.login(profile.bridge.username, password)
    except BaseException:
        session.close()
        raise
    return session


def find(given: int | None, first: int, greeting: bytes, name: str) -> Place:
    """A server on the given port, else on the first near port where one is; ``BridgeDownError``."""
    for port in [given] if given else range(first, first + NEAR):
        mode = connection_mode(HOST, port, greeting)
        if mode is not None:
            return Place(port, mode)
    where = str(given) if given else f"{first} to {first + NEAR - 1}"
    raise BridgeDownError(
        f"Bridge's {name} server was not found on {HOST}, port {where}.",
        remedy=f"Start Bridge and log in; if it shows another port, say so: --{name.lower()}-port.",
    )


def listens(host: str, port: int) -> bool:
    """Whether anything does."""
    try:
        socket.create_connection((host, port), _SECONDS).close()
    except OSError:
        return False
    return True


def connection_mode(host: str, port: int, greeting: bytes) -> str | None:
    """``starttls`` or ``implicit``, if what listens there greets so."""
    try:
        with socket.create_connection((host, port), _SECONDS) as connection:
            try:
                if connection.recv(64).startswith(greeting):
                    return "starttls"
            except TimeoutError:
                pass
        with (
            socket.create_connection((host, port), _SECONDS) as connection,
            _seeing().wrap_socket(connection) as secure,
        ):
            return "implicit" if secure.recv(64).startswith(greeting) else None
    except OSError:
        return None


def shown_certificate(imap: Imap) -> str:
    """The fingerprint of the certificate that is shown, whatever it is worth."""
    client: imaplib.IMAP4
    try:
        if imap.tls == "implicit":
            client = imaplib.IMAP4_SSL(imap.host, imap.port, ssl_context=_seeing(), timeout=10)
        else:
            client = imaplib.IMAP4(imap.host, imap.port, timeout=10)
            client.starttls(_seeing())
        connection = client.socket()
        found = connection.getpeercert(True) if isinstance(connection, ssl.SSLSocket) else b""
        client.shutdown()
    except (OSError, imaplib.IMAP4.error) as error:
        raise CertificateError("Bridge's certificate cannot be read.") from error
    return fingerprint(found or b"")


def _seeing() -> ssl.SSLContext:
    """Takes any certificate, to look at it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
