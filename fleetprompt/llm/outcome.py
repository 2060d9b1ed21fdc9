"""What asking a language model comes to."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

FailureKind = Literal[
    "budget",
    "refused",
    "unreachable",
    "auth",
    "rate_limit",
    "rejected",
    "server",
    "timeout",
    "lost",
    "too_large",
    "malformed",
    "cut_short",
]
"""Why there is no text.

``budget``: the tenant's day has no room for the call; ``refused``: against the outbound policy;
``unreachable``: no connection; ``auth``: 401, 403 or an unusable key; ``rate_limit``: 429;
``rejected``: another status that is not 200; ``server``: 5xx; ``timeout``: no whole answer in time;
``lost``: the connection broke; ``too_large``: more bytes than the cap; ``malformed``: not the shape of
a chat completion; ``cut_short``: the model did not come to its end, or a filter held it back.
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was counted against the tenant's day: tokens, and millionths of a US dollar."""

    tokens_in: int = 0
    tokens_out: int = 0
    micro_dollars: int = 0

    @property
    def dollars(self) -> Decimal:
        """The cost in US dollars, exact."""
        return Decimal(self.micro_dollars).scaleb(-6)


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's text, without control characters other than newline and tab; never empty."""

    text: str
    usage: Usage
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """No text. ``message`` is ours alone: it holds nothing of the question, the answer or the key.

    Where the call may have been carried out and did not say what it used, ``usage`` is the most that
    it can have been.
    """

    kind: FailureKind
    message: str
    usage: Usage
    seconds: float


Outcome = Completion | Failure
