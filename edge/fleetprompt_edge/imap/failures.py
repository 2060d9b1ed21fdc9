"""What goes wrong on the way to Bridge, in our own words.

No text of imaplib, imapclient or the server is passed on: it may repeat a password or a mail.
"""

import imaplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imapclient import IMAPClient
from imapclient.exceptions import CapabilityError, IMAPClientError, LoginError

from fleetprompt_edge.errors import (
    BridgeDownError,
    BridgeRefusedError,
    BridgeTlsError,
    CertificateError,
)
from fleetprompt_edge.profile import Imap


@contextmanager
def telling() -> Iterator[None]:
    """During a command: imaplib's, imapclient's and the network's errors as ours."""
    try:
        yield
    except LoginError:
        raise
    except (imaplib.IMAP4.abort, OSError, EOFError) as error:
        raise BridgeDownError("The connection to Bridge was lost.") from error
    except (imaplib.IMAP4.error, IMAPClientError, CapabilityError) as error:
        if "bytes" in str(error) and "more than" in str(error):
            # A line above imaplib's limit: the rest of it is still to come, so nothing fits any more.
            raise BridgeDownError("Bridge's answer has a line without end.") from error
        raise BridgeRefusedError("Bridge refused a command.") from error


@contextmanager
def telling_of_tls(options: Imap) -> Iterator[None]:
    """While connecting: which of the ways in which two sides can miss each other it was."""
    where = f"{options.host}:{options.port}"
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(
            "Bridge's certificate is not one that an authority vouches for.",
            remedy="`fleetprompt-edge doctor` shows its fingerprint; compare it with Bridge's and set "
            "bridge.certificate_sha256.",
        ) from error
    except CapabilityError as error:
        raise BridgeTlsError(
            f"{where} offers no encryption (STARTTLS); no name or password was sent.",
            remedy="Compare port and connection mode with Bridge's settings.",
        ) from error
    except ssl.SSLError as error:
        raise BridgeTlsError(
            f"{where} does not speak TLS as expected.",
            remedy='Compare bridge.imap.tls ("starttls" or "implicit") with Bridge\'s settings.',
        ) from error
    except TimeoutError as error:
        raise BridgeDownError(
            f"{where} accepted the connection and says nothing, or does not answer.",
            remedy="Compare the port, and bridge.imap.tls, with Bridge's settings.",
        ) from error
    except OSError as error:
        raise BridgeDownError(
            f"Nothing listens on {where}.",
            remedy="Start Bridge, compare the port with its settings, and see that it is online: it "
            "closes the port while it has no connection to Proton.",
        ) from error
    except (imaplib.IMAP4.error, IMAPClientError) as error:
        raise BridgeDownError(f"{where} does not answer like an IMAP server.") from error


def hang_up(client: IMAPClient) -> None:
    """Close the socket under whatever is going on: a polite LOGOUT could wait for ever."""
    with suppress(OSError, AttributeError):
        client.socket().shutdown(socket.SHUT_RDWR)
    with suppress(OSError, imaplib.IMAP4.error, AttributeError):
        client.shutdown()
