"""Writing what processes counted where every scrape finds it, also after they are gone.

Drains live for minutes and nobody scrapes them, and several processes of the API stand behind one
address. So each process adds what it counted to rows of its own, every few seconds and at its end, and a
scrape reads the sum. Additions carry the number of their flush: one whose commit nobody confirmed is
sent again and counts once. Rows of ended processes are folded into one row a series in the same
transaction that deletes them, so that a sum never falls and rates are right.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.errors import FleetPromptError
from fleetprompt.ids import new_id
from fleetprompt.telemetry.counting import RECORDER, Amounts, Recorder, Series, sum_up
from fleetprompt.telemetry.process import PROCESS, ProcessState

Role = Literal["api", "worker"]

FLUSH_SECONDS = 5.0
# Ended rows stay so long, so that what ended just now can still be asked when it last began work; a
# process that was not heard of for longer counts as ended. If it comes back, it adds to new rows.
KEPT_SECONDS = 300.0
FOLDED_ID = UUID(int=0)

_FLUSHES_A_FOLD = 60
_LAST_FLUSH_SECONDS = 3.0
_FOLD_LOCK = 7_203_115_048_201

_SEEN = text(
    """
    INSERT INTO fleetprompt.worker_processes AS p (id, role, state, last_start_at, ended_at)
    VALUES (:id, :role, CAST(:state AS jsonb), now() - make_interval(secs => :started_ago),
            CASE WHEN :ended THEN now() END)
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, seen_at = now(),
        last_start_at = excluded.last_start_at, ended_at = excluded.ended_at
    """
)
_ADD = text(
    """
    INSERT INTO fleetprompt.worker_counters AS kept (process_id, metric, labels, amounts, flush)
    SELECT :id, metric, labels, amounts, :flush
    FROM jsonb_to_recordset(CAST(:counted AS jsonb))
      AS counted (metric text, labels text[], amounts double precision[])
    ON CONFLICT (process_id, metric, labels) DO UPDATE SET
        amounts = ARRAY(SELECT a + b FROM unnest(kept.amounts, excluded.amounts)
                          WITH ORDINALITY AS both_of (a, b, place) ORDER BY place),
        flush = excluded.flush
    WHERE kept.flush < excluded.flush
    """
)
_FOLD = text(
    """
    WITH gone AS (
      DELETE FROM fleetprompt.worker_processes
      WHERE coalesce(ended_at, seen_at) < now() - make_interval(secs => :kept) RETURNING id
    ), taken AS (
      DELETE FROM fleetprompt.worker_counters c USING gone WHERE c.process_id = gone.id
      RETURNING c.metric, c.labels, c.amounts
    ), placed AS (
      SELECT t.metric, t.labels, a.place, sum(a.amount) AS amount
      FROM taken t CROSS JOIN LATERAL unnest(t.amounts) WITH ORDINALITY AS a (amount, place)
      GROUP BY t.metric, t.labels, a.place
    )
    INSERT INTO fleetprompt.worker_counters AS kept (process_id, metric, labels, amounts, flush)
    SELECT :folded, metric, labels, array_agg(amount ORDER BY place), 0
    FROM placed GROUP BY metric, labels
    ON CONFLICT (process_id, metric, labels) DO UPDATE SET
        amounts = ARRAY(SELECT a + b FROM unnest(kept.amounts, excluded.amounts)
                          WITH ORDINALITY AS both_of (a, b, place) ORDER BY place)
    """
)
_SUMS = text("SELECT metric, labels, amounts FROM fleetprompt.worker_counters")

logger = logging.getLogger(__name__)


class Reporter:
    """Writes what one process counts, under an id of its own."""

    def __init__(
        self,
        database: Database,
        role: Role,
        *,
        recorder: Recorder = RECORDER,
        process: ProcessState = PROCESS,
    ) -> None:
        self.id = new_id()
        self._database, self._role = database, role
        self._recorder, self._process = recorder, process
        self._flushing = asyncio.Lock()
        self._unconfirmed: dict[Series, Amounts] = {}
        self._flush = 0

    async def flush(self, *, ended: bool = False) -> None:
        """Write what was counted; FleetPromptError or DBAPIError, and nothing is lost, if it cannot be.

        After a failure the same additions are sent first and alone, under the same number.
        """
        async with self._flushing:
            if self._unconfirmed:
                await self._write(ended=False)
            self._unconfirmed = self._recorder.take()
            self._flush += 1
            await self._write(ended=ended)

    def unwritten(self) -> dict[Series, Amounts]:
        """What was counted here and is not known to be in the table."""
        found = self._recorder.peek()
        sum_up(found, self._unconfirmed)
        return found

    async def _write(self, *, ended: bool) -> None:
        async with self._database.platform() as session:
            await session.execute(
                _SEEN,
                {
                    "id": self.id,
                    "role": self._role,
                    "state": json.dumps(self._process.describe()),
                    "started_ago": self._process.seconds_since_start(),
                    "ended": ended,
                },
            )
            if self._unconfirmed:
                counted = [
                    {"metric": metric, "labels": labels, "amounts": amounts}
                    for (metric, labels), amounts in sorted(self._unconfirmed.items())
                ]
                await session.execute(
                    _ADD, {"id": self.id, "flush": self._flush, "counted": json.dumps(counted)}
                )
        self._unconfirmed = {}

    async def run(self, seconds: float) -> None:
        """Flush every so many seconds, and fold now and then, until cancelled."""
        turn = 0
        while True:
            try:
                await self.flush()
                if turn % _FLUSHES_A_FOLD == 0:
                    await fold_ended(self._database)
                turn += 1
            except (FleetPromptError, DBAPIError) as error:
                logger.warning("metrics were not written: %s", type(error).__name__)
            await asyncio.sleep(seconds)

    async def end(self) -> None:
        """The last flush; what cannot be written in time is given to who may still write it."""
        try:
            async with asyncio.timeout(_LAST_FLUSH_SECONDS):
                await self.flush(ended=True)
        except (TimeoutError, FleetPromptError, DBAPIError) as error:
            logger.warning("the last metrics were not written: %s", type(error).__name__)
            self._recorder.give_back(self._unconfirmed)
            self._unconfirmed = {}


@asynccontextmanager
async def reporting(
    database: Database, role: Role, *, seconds: float = FLUSH_SECONDS
) -> AsyncIterator[Reporter]:
    """Report for as long as the block runs, and once more at its end."""
    reporter = Reporter(database, role)
    task = asyncio.create_task(reporter.run(seconds), name="reporter")
    try:
        yield reporter
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=0.1)
        await reporter.end()


async def fold_ended(database: Database, *, kept_seconds: float = KEPT_SECONDS) -> None:
    """Fold rows of processes that ended; one process at a time does, and who comes second need not."""
    async with database.platform() as session:
        mine = await session.scalar(
            text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _FOLD_LOCK}
        )
        if mine:
            await session.execute(_FOLD, {"kept": kept_seconds, "folded": FOLDED_ID})


async def sums(session: AsyncSession) -> dict[Series, Amounts]:
    """What all processes together have counted since the beginning."""
    found: dict[Series, Amounts] = {}
    for metric, labels, amounts in await session.execute(_SUMS):
        sum_up(found, {(metric, tuple(labels)): amounts})
    return found
