"""Challenges: a little work before the server does its own (hashcash, with SHA-256).

The nonce is signed and bound to site and visitor, so that nothing is kept until one was used.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from fleetprompt.errors import ChallengeRequiredError
from fleetprompt.webchat.signing import decode, encode, holds, mac

LIFE = timedelta(minutes=2)
FEWEST_BITS, MOST_BITS = 12, 18  # as much as the widget does
HEADER_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Proof:
    """An answered challenge; its nonce is good for one request, until ``expires_at``."""

    nonce: str
    bits: int
    expires_at: datetime


def bits_for(excess: int) -> int:
    """How much work is asked for ``excess`` requests beyond the free ones: a bit for each doubling."""
    return min(MOST_BITS, FEWEST_BITS + max(0, excess).bit_length())


def challenge(secret: bytes, site: UUID, visitor: UUID, bits: int, now: datetime) -> dict[str, Any]:
    """A new challenge as it is sent to the widget."""
    expires = int((now + LIFE).timestamp())
    text = f"{expires}.{bits}.{encode(secrets.token_bytes(12))}"
    signature = encode(mac(secret, "challenge", f"{text}:{site}:{visitor}"))
    return {"kind": "work", "nonce": f"{text}.{signature}", "bits": bits}


def required(
    secret: bytes, site: UUID, visitor: UUID, bits: int, now: datetime
) -> ChallengeRequiredError:
    """The refusal that asks for work."""
    return ChallengeRequiredError(challenge=challenge(secret, site, visitor, bits, now))


def read_proof(
    answer: str | None, secret: bytes, site: UUID, visitor: UUID, now: datetime
) -> Proof | None:
    """The proof in the ``Webchat-Challenge`` header, None where there is none that holds."""
    if answer is None or len(answer) > HEADER_LIMIT or not answer.isascii():
        return None
    nonce, _, number = answer.rpartition(":")
    text, _, signature = nonce.rpartition(".")
    try:
        expires, bits, _ = text.split(".")
        good = (
            number.isdigit()
            and holds(secret, "challenge", f"{text}:{site}:{visitor}", decode(signature))
            and now.timestamp() < int(expires)
            and _leading_zero_bits(answer) >= int(bits)
        )
    except ValueError:
        return None
    return Proof(nonce, int(bits), datetime.fromtimestamp(int(expires), UTC)) if good else None


def _leading_zero_bits(answer: str) -> int:
    digest = int.from_bytes(hashlib.sha256(answer.encode()).digest())
    return 256 - digest.bit_length()
