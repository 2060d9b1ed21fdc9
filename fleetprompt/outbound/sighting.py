"""What looking for a message on the other side gave."""

from dataclasses import dataclass

from fleetprompt.errors import ErrorKind


@dataclass(frozen=True, slots=True)
class Sighting:
    """``remote_id`` of the message if it was seen.

    ``complete`` says whether not seeing it means anything: everything that could be it was looked
    through. Otherwise ``error_kind`` and ``message`` say in plain words why not, and
    ``retry_after_seconds`` when the other side wants to be asked again.
    """

    remote_id: str | None
    complete: bool
    error_kind: ErrorKind | None = None
    message: str = ""
    retry_after_seconds: float | None = None
