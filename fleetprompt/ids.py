"""Identifiers: UUID version 7 (RFC 9562 §5.7), time-ordered so that indexes grow at one end."""

import os
import time
from uuid import UUID

_last_ms = 0
_sequence = 0


def new_id() -> UUID:
    """A UUIDv7; ids made by one process in one millisecond keep their order.

    48 bits of Unix milliseconds, 12 bits of a counter within the millisecond (``rand_a``, method 1
    of §6.2), 62 random bits. When the counter is full the clock is borrowed from the next millisecond.
    """
    global _last_ms, _sequence
    now = time.time_ns() // 1_000_000
    if now > _last_ms:
        _last_ms, _sequence = now, 0
    else:
        _sequence += 1
        if _sequence > 0xFFF:
            _last_ms, _sequence = _last_ms + 1, 0
    random_bits = int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF
    return UUID(int=(_last_ms << 80) | (0x7 << 76) | (_sequence << 64) | (0b10 << 62) | random_bits)
