"""The last digests as bars, in a PNG made without any library, with colours for light and dark pages.

Two rows: signals above, errors below, each scaled to its own highest; the last bar is this digest's.
The ground is transparent, so that the page's own shows through.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

BARS = 14
_ROW, _GAP, _BAR, _SPACE = 56, 12, 34, 10
WIDTH, HEIGHT = BARS * (_BAR + _SPACE), 2 * _ROW + _GAP
_GROUND, _SIGNALS, _ERRORS, _LINE = range(4)
# Mid tones: at least 3:1 against white and against near-black (WCAG 2.2, 1.4.11).
_COLOURS = ((0, 0, 0), (0x5B, 0x8D, 0xC9), (0xE0, 0x4F, 0x4F), (0x80, 0x86, 0x8E))


@dataclass(frozen=True, slots=True)
class Bar:
    """One digest's figures."""

    day: str
    signals: int
    errors: int

    def as_json(self) -> dict[str, Any]:
        """For storing."""
        return {"day": self.day, "signals": self.signals, "errors": self.errors}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        """What ``as_json`` wrote."""
        return cls(stored["day"], stored["signals"], stored["errors"])


def draw(bars: Sequence[Bar]) -> bytes:
    """The PNG of the last ``BARS`` of them, oldest first, ``WIDTH`` by ``HEIGHT`` pixels."""
    shown = list(bars)[-BARS:]
    pixels = [bytearray(WIDTH) for _ in range(HEIGHT)]
    for base, colour, values in (
        (_ROW, _SIGNALS, [bar.signals for bar in shown]),
        (HEIGHT, _ERRORS, [bar.errors for bar in shown]),
    ):
        pixels[base - 1][:] = bytes([_LINE]) * WIDTH
        highest = max(values, default=0)
        for place, value in enumerate(values, start=BARS - len(values)):
            # Anything above nothing is seen.
            tall = -(-value * (_ROW - 2) // highest) if value else 0
            left = place * (_BAR + _SPACE) + _SPACE // 2
            for row in range(base - 1 - tall, base - 1):
                pixels[row][left : left + _BAR] = bytes([colour]) * _BAR
    return _png(pixels)


def described(bars: Sequence[Bar]) -> str:
    """The picture in words, for those who do not see it."""
    shown = list(bars)[-BARS:]
    signals = ", ".join(f"{bar.signals:,}" for bar in shown)
    errors = ", ".join(f"{bar.errors:,}" for bar in shown)
    return f"Signals: {signals}. Errors: {errors}. Oldest first."


def _png(pixels: Sequence[bytearray]) -> bytes:
    """Indexed colour, eight bits a pixel (PNG specification, third edition, §11)."""
    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 3, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row) for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", bytes(part for colour in _COLOURS for part in colour)),
            _chunk(b"tRNS", b"\0"),
            _chunk(b"IDAT", zlib.compress(rows, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
