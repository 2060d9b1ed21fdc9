"""The thread that shows systemd that the connector is alive, and turns debug logs on and off.

It says so only after a transaction of its own on the store, through which all work goes: where that
hangs, the watchdog is not told, and systemd starts the connector anew.
"""

import json
import logging
from threading import Event, Thread

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.log import logger
from fleetprompt_edge.running.health import PROBLEMS
from fleetprompt_edge.service.notice import Notice
from fleetprompt_edge.store import Store

DEBUG_UNTIL = "debug_until"  # note: epoch s
_SECONDS = 5.0


class Keeper:
    """At work from ``start`` to ``stop``. ``debug``: debug logs are on whatever the note says."""

    def __init__(self, store: Store, notice: Notice, clock: Clock, *, debug: bool = False) -> None:
        self._store = store
        self._notice = notice
        self._clock = clock
        self._debug = debug
        self._stop = Event()
        self._thread = Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Say that the connector is ready, and go on saying that it lives."""
        self._notice.say(READY="1", STATUS="Starting.")
        self._thread.start()

    def stop(self) -> None:
        """Say that it ends."""
        self._notice.say(STOPPING="1", STATUS="Stopping.")
        self._stop.set()
        self._thread.join(_SECONDS)

    def _run(self) -> None:
        watched = self._notice.watched
        seconds = min(_SECONDS, watched / 3) if watched else _SECONDS
        while not self._clock.wait(self._stop, seconds):
            self.turn()

    def turn(self) -> None:
        """Look once."""
        with self._store.transaction():
            problems = self._store.notes.under(PROBLEMS)
            waiting = self._store.queue.backlog().signals
            until = self._store.notes.get(DEBUG_UNTIL)
        status = f"{waiting} signals wait."
        if problems:
            first = json.loads(next(iter(problems.values())))
            status = f"{first['place']}: {first['message']} {status}"
        self._notice.say(WATCHDOG="1", STATUS=status)
        wanted = self._debug or (until is not None and self._clock.now().timestamp() < float(until))
        if wanted != logger.isEnabledFor(logging.DEBUG):
            logger.setLevel(logging.DEBUG if wanted else logging.INFO)
            logger.info("debug logs on" if wanted else "debug logs off")
