"""How values read on a page: times, durations, states, JSON, and text that others wrote."""

import json
import re
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

GOOD = frozenset(
    {"succeeded", "approved", "completed", "connected", "posted", "done", "installed", "open"}
)
BAD = frozenset(
    {
        *("failed", "rejected", "expired", "invalidated", "degraded", "error", "unknown"),
        *("skipped_missed", "retryable", "silent"),
    }
)
WAITING = frozenset({"awaiting_approval", "waiting", "warning"})

# Characters that are not seen but change what is: directions (Unicode UAX #9), zero widths, tags,
# controls by their category; fillers that count as letters by name.
_HIDING = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})
_FILLERS = frozenset("\u034f\u115f\u1160\u3164\uffa0")
# Joiners, which emoji and Persian or Indic words are written with, and marks of direction: in a conversation
# they are spelling.
_SPELLING = frozenset("\u200c\u200d\u200e\u200f")
_LOOKED_AT = re.compile(r"[^\t\n\x20-\x7e]")


def state_class(state: str) -> str:
    """The look of a state."""
    if state in GOOD:
        return "good"
    if state in BAD:
        return "bad"
    return "wait" if state in WAITING else "plain"


def state_words(state: str) -> str:
    """A state as it is read."""
    return state.replace("_", " ")


def when(moment: datetime | None, fallback: str = "–", *, seconds: bool = False) -> Markup:
    """A time in UTC, readable by people and programs; to the minute unless ``seconds`` matter."""
    if moment is None:
        return escape(fallback)
    at = moment.astimezone(UTC)
    exact = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}">{} UTC</time>').format(
        exact, exact, f"{at:%d %b %Y, %H:%M:%S}" if seconds else f"{at:%d %b %Y, %H:%M}"
    )


def at_time(moment: datetime, now: datetime) -> Markup:
    """A time of today in UTC as hours and minutes, one of another day with its date."""
    at = moment.astimezone(UTC)
    if at.date() != now.astimezone(UTC).date():
        return when(moment)
    exact = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}" title="{}">{} UTC</time>').format(
        exact, exact, f"{at:%H:%M}"
    )


def span(length: timedelta) -> str:
    """A length of time in its two largest units."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 60:
        return f"{seconds}\N{NO-BREAK SPACE}s"
    parts: list[tuple[int, str]] = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60)):
        count, seconds = divmod(seconds, size)
        if count or parts:
            parts.append((count, name))
    return " ".join(f"{count}\N{NO-BREAK SPACE}{name}" for count, name in parts[:2] if count)


def took(length: timedelta) -> str:
    """How long work took: ``span``, and in milliseconds below a second."""
    milliseconds = round(length.total_seconds() * 1000)
    return f"{milliseconds}\N{NO-BREAK SPACE}ms" if 0 <= milliseconds < 1000 else span(length)


def until(moment: datetime, now: datetime) -> str:
    """How long it is until a moment, or since."""
    return f"in {span(moment - now)}" if moment > now else f"{span(now - moment)} ago"


def said(text: Any) -> Markup:
    """As ``shown`` what people wrote to each other, in whatever script."""
    return shown(text, spelling=_SPELLING)


def shown(text: Any, spelling: frozenset[str] = frozenset()) -> Markup:
    """Text that others wrote, escaped, with every character made visible that hides or turns others.

    Those of ``spelling`` stay as they are.
    """
    plain = str(text).replace("\r\n", "\n")
    parts: list[str] = []
    begin = 0
    for found in _LOOKED_AT.finditer(plain):
        sign = found[0]
        hides = unicodedata.category(sign) in _HIDING or sign in _FILLERS
        if not hides or sign in spelling:
            continue
        name = unicodedata.name(sign, "control character").lower()
        mark = Markup('<span class="hidden-sign" title="{}">U+{}</span>')
        parts += [escape(plain[begin : found.start()]), mark.format(name, f"{ord(sign):04X}")]
        begin = found.end()
    return Markup("").join([*parts, escape(plain[begin:])])


def as_json(value: Any) -> str:
    """JSON for people: indented, in the alphabet it was written in."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def timeline_page(correlation_id: str) -> str:
    """The page of everything under an id. Encoded whole: an id may hold ``/`` and ``..``."""
    encoded = quote(correlation_id, safe="")
    # A browser would walk the dots, whether or not the slashes are encoded.
    if correlation_id.strip(".") == "" or "/" in correlation_id or "\\" in correlation_id:
        return f"/console/timeline?id={encoded}"
    return f"/console/timeline/{encoded}"
