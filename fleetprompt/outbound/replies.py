"""What an HTTP answer says, whichever service gave it."""

from datetime import UTC
from email.utils import parsedate_to_datetime

from fleetprompt.clock import system_clock
from fleetprompt.outbound.http import Reply

_LONGEST_WAIT_SECONDS = 3600.0
_WAIT_SECONDS = 60.0
_HTML = ("text/html", "application/xhtml+xml")


def is_page(reply: Reply) -> bool:
    """Whether the answer is a web page, told by its content type."""
    return reply.media_type in _HTML


def retry_after(reply: Reply) -> float:
    """Seconds to wait, 1 to 3600: ``Retry-After``, else ``X-RateLimit-Reset``, else a minute.

    ``Retry-After`` may be a date (RFC 9110 §10.2.3); Mattermost's reset is in seconds from now.
    """
    for name in ("retry-after", "x-ratelimit-reset"):
        seconds = _seconds(reply.headers.get(name, ""))
        if seconds is not None:
            return min(max(seconds, 1.0), _LONGEST_WAIT_SECONDS)
    return _WAIT_SECONDS


def _seconds(value: str) -> float | None:
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return (at - system_clock()).total_seconds()
