"""How the work of a directive may fail: a small closed set, the same everywhere (architecture §5)."""

from fleetprompt.errors import ErrorKind

# What a retry cannot mend: somebody has to change a credential or an input first.
FINAL_KINDS: frozenset[ErrorKind] = frozenset({"auth", "validation"})

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
