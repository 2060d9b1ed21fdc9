"""Encryption towards Bridge: a certificate that is pinned by its SHA-256 fingerprint.

Bridge signs its own certificate, for 127.0.0.1 alone (research/edge.md §2.1), so that no authority can
vouch for it. The owner compares the fingerprint once and writes it into the profile; any other
certificate ends the connection before a name or password is sent.
"""

import hashlib
import socket
import ssl

from fleetprompt_edge.errors import BridgeTlsError, CertificateError


def bridge_context(pin: str | None) -> ssl.SSLContext:
    """The context for Bridge: with a pin nothing else counts, without one the usual rules hold."""
    if pin is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_pin(connection: socket.socket, pin: str | None) -> None:
    """``CertificateError`` unless the other side's certificate is the pinned one."""
    if pin is None:
        return
    if not isinstance(connection, ssl.SSLSocket):
        raise BridgeTlsError("The connection to Bridge is not encrypted.")
    found = fingerprint(connection.getpeercert(binary_form=True) or b"")
    if found != pin:
        raise CertificateError(
            f"Bridge shows another certificate than the pinned one: {found}.",
            remedy="If Bridge was installed anew or its certificate was exchanged, compare this "
            "fingerprint with Bridge's and set bridge.certificate_sha256; else somebody is between.",
        )


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a DER certificate, in the usual form: pairs of hex digits joined by colons."""
    digest = hashlib.sha256(certificate).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
