"""How the work of a directive may fail: a small closed set, the same everywhere (architecture §5)."""

from collections.abc import Mapping
from dataclasses import dataclass

from fleetprompt.errors import ErrorKind


@dataclass(frozen=True, slots=True)
class FailureClass:
    """What a class of failure means, and on which terms another attempt follows; None for never."""

    means: str
    retried: str | None


_WHERE_NOTHING_HAPPENED = "where certainly nothing happened"
FAILURE_CLASSES: Mapping[ErrorKind, FailureClass] = {
    "auth": FailureClass("the other side does not accept the credential", None),
    "validation": FailureClass("the request can never work as it is", None),
    "rate_limit": FailureClass("too often", "not before `Retry-After`"),
    "network": FailureClass("not reached, or no answer", _WHERE_NOTHING_HAPPENED),
    "unknown": FailureClass("none of these", _WHERE_NOTHING_HAPPENED),
}

# What a retry cannot mend: somebody has to change a credential or an input first.
FINAL_KINDS = frozenset(kind for kind, one in FAILURE_CLASSES.items() if one.retried is None)

_LONGEST_MESSAGE = 1000


class DirectiveFailed(Exception):  # noqa: N818 - says what happened, as the state does
    """The attempt failed and certainly left no effect behind that a further one would repeat.

    ``message`` is in plain words and holds no secret; ``retry_after`` is in seconds, as the other
    side asked for it.
    """

    def __init__(
        self, error_kind: ErrorKind, message: str, *, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.error_kind: ErrorKind = error_kind
        self.message = message[:_LONGEST_MESSAGE]
        self.retry_after = retry_after


class OutcomeUnknown(Exception):  # noqa: N818 - says what happened, as the state does
    """Nobody can say whether the effect took place; never tried again without a person's word.

    ``error_kind`` is the class of what hid the answer, most often ``network``.
    """

    def __init__(self, message: str, *, error_kind: ErrorKind = "unknown") -> None:
        super().__init__(message)
        self.error_kind: ErrorKind = error_kind
        self.message = message[:_LONGEST_MESSAGE]
