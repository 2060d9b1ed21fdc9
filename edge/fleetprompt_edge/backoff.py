"""How long to wait after a failure."""

import random

from fleetprompt_edge.clock import Clock


class Backoff:
    """Full jitter: a random time up to a bound that doubles with each failure.

    The bound falls back only after success has lasted: a server that accepts a login and then drops
    the connection would else be asked without a pause (research/edge.md §1).
    """

    def __init__(
        self,
        clock: Clock,
        *,
        first: float,
        longest: float,
        proven: float,
        chance: random.Random | None = None,
    ) -> None:
        self._clock = clock
        self._first = first
        self._longest = longest
        self._proven = proven
        self._chance = chance or random.Random()  # noqa: S311 - no secret is made of it
        self._failures = 0
        self._well_since: float | None = None

    def failed(self, at_least: float = 0.0) -> float:
        """Seconds to wait now; not less than what the other side asked for."""
        self._settle()
        self._well_since = None
        bound = min(self._longest, self._first * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return max(at_least, self._chance.uniform(self._first / 2, bound))

    def worked(self) -> None:
        """It works, at least for now."""
        if self._well_since is None:
            self._well_since = self._clock.monotonic()
        self._settle()

    def _settle(self) -> None:
        if self._well_since is None or not self._failures:
            return
        if self._clock.monotonic() - self._well_since >= self._proven:
            self._failures = 0
