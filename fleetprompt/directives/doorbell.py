"""Telling polls that wait for a connector's directives that there is something to fetch.

One task and one query serve all that wait in a process: after each notice, and every second because a
notice may be lost (research/platform.md, T11) and because leases and delays run out without any.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import Text

from fleetprompt.db.engine import Database
from fleetprompt.directives.wake import WakeUps, end_task
from fleetprompt.errors import FleetPromptError

_PAUSE = 0.02  # seconds between looks, however many notices come

# Reads the index table alone, which holds ids and times of all tenants.
_WITH_WORK = text(
    """
    SELECT w.tenant_schema, w.target
    FROM unnest(:schemas, :targets) AS w (tenant_schema, target)
    WHERE EXISTS (SELECT FROM fleetprompt.directive_queue q
                  WHERE q.tenant_schema = w.tenant_schema AND q.target = w.target
                    AND q.due_at <= now())
    """
).bindparams(bindparam("schemas", type_=ARRAY(Text())), bindparam("targets", type_=ARRAY(Text())))

logger = logging.getLogger("fleetprompt.directives")


class Doorbell:
    """Rings for those who wait when a directive with their target is due.

    Everybody who waits for one connector hears it, and who then comes too late waits on.
    """

    def __init__(self, database: Database, *, poll_seconds: float = 1.0) -> None:
        self._database = database
        self._poll_seconds = poll_seconds
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._of_tenant: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.create_task(self._run(), name="doorbell")

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            await end_task(self._task)

    @contextlib.contextmanager
    def waiting(self, tenant_schema: str, target: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the connector may have something to fetch; clear it yourself."""
        rung, place = asyncio.Event(), (tenant_schema, target)
        self._waiting.setdefault(place, set()).add(rung)
        self._of_tenant[tenant_schema] += 1
        try:
            yield rung
        finally:
            self._waiting[place].discard(rung)
            if not self._waiting[place]:
                del self._waiting[place]
            self._of_tenant[tenant_schema] -= 1
            if not self._of_tenant[tenant_schema]:
                del self._of_tenant[tenant_schema]

    def number_waiting(self, tenant_schema: str) -> int:
        """How many wait for a tenant's connectors in this process."""
        return self._of_tenant[tenant_schema]

    async def _run(self) -> None:
        async with WakeUps(self._database.url) as wake_ups:
            while True:
                await wake_ups.wait(self._poll_seconds)
                try:
                    await self._ring()
                except FleetPromptError as error:
                    logger.warning("no look for connectors' directives: %s", error.id)
                except DBAPIError:
                    logger.exception("looking for connectors' directives failed")
                await asyncio.sleep(_PAUSE)

    async def _ring(self) -> None:
        places = list(self._waiting)
        if not places:
            return
        schemas, targets = [one for one, _ in places], [one for _, one in places]
        found = await self._database.statement(_WITH_WORK, {"schemas": schemas, "targets": targets})
        due = [(row.tenant_schema, row.target) for row in found]
        for place in due:
            for rung in self._waiting.get(place, ()):
                rung.set()
