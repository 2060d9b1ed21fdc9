"""Directives beside their run: worked on in a thread with a loop of its own, the run tells what it did.

Dagster writes each event with a statement of its own and blocks meanwhile; on one loop that would hold
up the directives, and a line for each would take longer than the directive did.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

from fleetprompt.directives.outcomes import DirectiveOutcome
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource

# What ends within so many seconds is told together, unless the work says otherwise.
_TOGETHER_SECONDS = 0.25
_MOST_TOGETHER = 200

Work = Callable[[OpenPlatform, Callable[[DirectiveOutcome], None]], Awaitable[None]]


class WorkThread:
    """Runs ``work`` for as long as the block lasts; leaving the block early stops it."""

    def __init__(
        self,
        platform: PlatformResource,
        work: Work,
        *,
        together_seconds: float = _TOGETHER_SECONDS,
    ) -> None:
        self._platform, self._work = platform, work
        self._together_seconds = together_seconds
        self._outcomes: queue.SimpleQueue[DirectiveOutcome | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="work", daemon=True)
        self._stop: Callable[[], object] | None = None
        self._stopping = False
        self._error: BaseException | None = None

    def batches(self) -> Iterator[list[DirectiveOutcome]]:
        """What has ended, in order, until the work is over; then its error, if it had one."""
        over = False
        while not over:
            batch: list[DirectiveOutcome] = []
            until: float | None = None
            while len(batch) < _MOST_TOGETHER:
                try:
                    wait = None if until is None else max(0.0, until - time.monotonic())
                    outcome = self._outcomes.get(timeout=wait)
                except queue.Empty:
                    break
                if outcome is None:
                    over = True
                    break
                batch.append(outcome)
                until = until or time.monotonic() + self._together_seconds
            if batch:
                yield batch
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stopping = True
        if self._stop is not None:
            self._stop()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._platform.open() as opened:
                opened.run(self._until_stopped(opened))
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the run waits
            self._error = error
        finally:
            self._outcomes.put(None)

    async def _until_stopped(self, opened: OpenPlatform) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        if task is None or self._stopping:
            return
        self._stop = lambda: loop.is_closed() or loop.call_soon_threadsafe(task.cancel)
        await self._work(opened, self._outcomes.put)
