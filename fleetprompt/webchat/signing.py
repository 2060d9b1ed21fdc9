"""What the server signs and reads back: text behind an HMAC-SHA256, each purpose apart from the others."""

import base64
import binascii
import hashlib
import hmac


def mac(secret: bytes, purpose: str, text: str) -> bytes:
    """32 bytes that only who has the secret can make, for this purpose alone."""
    return hmac.digest(secret, f"{purpose}\x00{text}".encode(), hashlib.sha256)


def holds(secret: bytes, purpose: str, text: str, signature: bytes) -> bool:
    """Whether ``signature`` is the one of ``text``; takes the same time whatever it is."""
    return hmac.compare_digest(mac(secret, purpose, text), signature)


def encode(content: bytes) -> str:
    """Base64 for URLs without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The reverse of ``encode``; ValueError for any other spelling of the same bytes."""
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if encode(content) != text:
        raise ValueError("not the one spelling of these bytes")
    return content
