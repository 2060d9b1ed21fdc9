"""What Google's answers mean: by status, and where that is not enough by the error's ``reason``.

403 may be a rate limit (trap 35). Of a body only that one word is read, compared with a closed list,
and dropped.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from fleetprompt.outbound.http import (
    ConnectFailedError,
    OutboundError,
    RefusedError,
    Reply,
)
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.replies import is_page, retry_after

Shape = TypeVar("Shape")

_RATE_REASONS = frozenset(
    {
        *("rateLimitExceeded", "userRateLimitExceeded", "dailyLimitExceeded", "quotaExceeded"),
        *("limitExceeded", "sendingLimitExceeded"),
    }
)
_REASONS = {
    "insufficientPermissions": "The delegation does not cover the scope gmail.compose.",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": "The delegation does not cover the scope gmail.compose.",
    "domainPolicy": "The Workspace's administrators have switched this off for the domain.",
    "accessNotConfigured": "The Gmail API is not switched on in the service account's project.",
    "SERVICE_DISABLED": "The Gmail API is not switched on in the service account's project.",
    "failedPrecondition": "The sender has no Gmail mailbox.",
}
_DELEGATION = (
    "Google does not let this service account act as the sender. A super admin adds its client id with "
    "the scope https://www.googleapis.com/auth/gmail.compose under Security → API controls → "
    "Domain-wide delegation (it may take a day), and the sender is a user of that Workspace."
)
_GRANT = (
    "Google does not accept the key or the sender: the key was revoked, the sender is no user of the "
    "Workspace, or this machine's clock is wrong."
)
_LIMITED = "Gmail is limiting requests; it will be tried again."


@dataclass(frozen=True)
class Answer:
    """An outcome as it is for a call with effects."""

    outcome: Outcome

    def harmless(self) -> Outcome:
        """The same for a call without effects: what may have been done may be done again."""
        if self.outcome.state != "unknown":
            return self.outcome
        kind = self.outcome.error_kind
        return Outcome("retryable", kind, self.outcome.message, self.outcome.http_status)


class _Detail(msgspec.Struct):
    reason: str = ""


class _Error(msgspec.Struct):
    errors: list[_Detail] = []
    details: list[_Detail] = []
    status: str = ""


class _Envelope(msgspec.Struct):
    error: _Error


class _TokenError(msgspec.Struct):
    error: str = ""


def whole(reply: Reply, shape: type[Shape]) -> Shape | None:
    """The answer's JSON if it is whole and of this shape; other fields are passed over."""
    if not reply.body_complete or reply.media_type != "application/json":
        return None
    try:
        return msgspec.json.decode(reply.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def token_refusal(reply: Reply) -> Outcome:
    """Why there is no token; never ``unknown``, since asking has no effect."""
    told = whole(reply, _TokenError)
    status = reply.status
    if (
        status in (400, 401)
        and told is not None
        and told.error in ("invalid_grant", "invalid_client")
    ):
        return Outcome("rejected", "auth", _GRANT, status)
    if status in (401, 403) or (told is not None and told.error == "unauthorized_client"):
        return Outcome("rejected", "auth", _DELEGATION, status)
    return refusal(reply).harmless()


def refusal(reply: Reply) -> Answer:
    """What an answer other than the expected one means."""
    status, reasons = reply.status, _reasons(reply)
    if 300 <= status < 400:
        words = "Something in between redirected the request to Gmail, which was not followed."
        return Answer(Outcome("rejected", "validation", words, status))
    if status == 429 or (status == 403 and reasons & _RATE_REASONS):
        return Answer(Outcome("retryable", "rate_limit", _LIMITED, status, retry_after(reply)))
    if is_page(reply) and status < 500 and status != 408:
        words = "A web page answered instead of Gmail; something is in between."
        answered = 200 <= status < 300
        return Answer(Outcome("unknown" if answered else "rejected", "validation", words, status))
    told = next((_REASONS[one] for one in sorted(reasons) if one in _REASONS), "")
    if status in (401, 403):
        return Answer(Outcome("rejected", "auth", told or _DELEGATION, status))
    if status >= 500 or status == 408:
        words = f"Gmail failed with status {status}."
        return Answer(Outcome("unknown", "network", words, status))
    if 400 <= status < 500:
        words = told or f"Gmail refused the request with status {status}."
        return Answer(Outcome("rejected", "auth" if told else "validation", words, status))
    return Answer(
        Outcome("unknown", "unknown", "The answer is not the one that Gmail gives.", status)
    )


def failure(error: OutboundError) -> Answer:
    """What a request without an answer means."""
    if isinstance(error, RefusedError):
        return Answer(Outcome("rejected", "validation", error.reason))
    if isinstance(error, ConnectFailedError):
        words = f"Google could not be reached: {error.reason} It will be tried again."
        return Answer(Outcome("retryable", "network", words))
    return Answer(Outcome("unknown", "network", f"Gmail's answer was lost: {error.reason}"))


def _reasons(reply: Reply) -> frozenset[str]:
    told: Any = whole(reply, _Envelope)
    if told is None:
        return frozenset()
    listed = [one.reason for one in (*told.error.errors, *told.error.details) if one.reason]
    return frozenset(listed)
