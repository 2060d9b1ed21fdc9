"""Working in small batches with a rest after each, so that others hardly notice."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType


@dataclass
class Pace:
    """``rows`` a batch; after each a rest of ``rest`` times as long as the batch took.

    ``async with pace:`` stands around one batch.
    """

    rows: int = 500
    rest: float = 3.0
    _started: float = 0.0

    async def __aenter__(self) -> None:
        self._started = time.monotonic()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if kind is None:
            await asyncio.sleep((time.monotonic() - self._started) * self.rest)
