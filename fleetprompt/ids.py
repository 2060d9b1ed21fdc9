"""Identifiers: UUID version 7 (RFC 9562 §5.7), time-ordered so that indexes grow at one end."""

import os
import time
from uuid import UUID

_RANDOM = (1 << 62) - 1
# Odd, so that adding it again and again meets every value of 62 bits before it repeats one.
_STRIDE = 0x9E3779B97F4A7C15

_last_ms = 0
_sequence = 0
_random = 0


def new_id() -> UUID:
    """A UUIDv7; ids made by one process keep their order.

    48 bits of Unix milliseconds, 12 bits of a counter within the millisecond (``rand_a``, method 1
    of §6.2), 62 bits that are random in each millisecond. When the counter is full the next
    millisecond is borrowed.
    """
    global _last_ms, _sequence, _random
    now = time.time_ns() // 1_000_000
    if now <= _last_ms:
        _sequence += 1
        if _sequence > 0xFFF:
            now = _last_ms + 1
    if now > _last_ms:
        _last_ms, _sequence = now, 0
        # Asking the system for each id would take a tenth of the time of storing a batch of signals.
        _random = int.from_bytes(os.urandom(8))
    else:
        _random += _STRIDE
    return UUID(
        int=(_last_ms << 80) | (0x7 << 76) | (_sequence << 64) | (0b10 << 62) | (_random & _RANDOM)
    )


def _forget() -> None:
    """A forked process must not go on with the numbers of its parent."""
    global _last_ms
    _last_ms = 0


os.register_at_fork(after_in_child=_forget)
