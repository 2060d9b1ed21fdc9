"""What became of one outbound message, in words that fit every transport."""

from dataclasses import dataclass
from typing import Literal

from fleetprompt.errors import ErrorKind

State = Literal["posted", "rejected", "retryable", "unknown"]


@dataclass(frozen=True)
class Outcome:
    """The answer of a transport.

    - ``posted``: it is there.
    - ``rejected``: it is certainly not there, and trying again changes nothing.
    - ``retryable``: it is certainly not there; the same message may be sent again, not before
      ``retry_after_seconds`` where that is set.
    - ``unknown``: bytes left and nobody can say; sending again may post twice.

    ``message`` is plain words for a person: what is wrong and what to do. It never holds anything
    of the response's body. ``remote_id`` is the other side's id where it gives one.
    """

    state: State
    error_kind: ErrorKind | None = None
    message: str = ""
    http_status: int | None = None
    retry_after_seconds: float | None = None
    remote_id: str | None = None

    def __post_init__(self) -> None:
        """Hold the invariant: only ``posted`` comes without an error kind and a message.

        Raises ``ValueError`` otherwise.
        """
        if (self.state == "posted") != (self.error_kind is None):
            raise ValueError("an error kind belongs to every state but posted")
        if self.state != "posted" and not self.message:
            raise ValueError("a message belongs to every state but posted")
