"""A worker's turn: how long it takes directives, and how it hands over without a gap."""

import time
from types import TracebackType
from typing import Self

from fleetprompt.db.engine import Database
from fleetprompt.directives import workers
from fleetprompt.errors import DatabaseUnavailableError, OverloadedError

_LOOK_SECONDS = 1.0
_AWAY = (DatabaseUnavailableError, OverloadedError)


class Turn:
    """From the block's beginning this worker is known to others, and to its end.

    After ``most_seconds`` it asks for a successor and goes on until there is one, at most for
    ``hand_over_seconds``.
    """

    def __init__(
        self, database: Database, owner: str, most_seconds: float, hand_over_seconds: float
    ) -> None:
        self._database, self._owner = database, owner
        self._most_seconds, self._hand_over_seconds = most_seconds, hand_over_seconds
        self._retire_at = self._look_at = 0.0
        self._retiring = self._over = False

    async def goes_on(self) -> bool:
        """Whether this worker may take more now."""
        now = time.monotonic()
        if self._over or now < self._retire_at:
            return not self._over
        if now >= self._retire_at + self._hand_over_seconds:
            self._over = True
        elif now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            try:
                self._over = await self._has_successor()
            except _AWAY:
                # Without a database nothing can be taken, by a successor either.
                return True
        return not self._over

    async def _has_successor(self) -> bool:
        if not self._retiring:
            await workers.retire(self._database, self._owner)
            self._retiring = True
        known = await workers.known_workers(self._database)
        return any(one.state == "taking" and one.owner != self._owner for one in known)

    async def __aenter__(self) -> Self:
        await workers.join(self._database, self._owner)
        self._retire_at = time.monotonic() + self._most_seconds
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            await workers.leave(self._database, self._owner)
        except _AWAY:
            # It is not seen any more, which tells the same a little later.
            return
