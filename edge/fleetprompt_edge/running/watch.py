"""One folder, one thread, one connection: look, wait, look again; reconnect when it breaks."""

import random
from collections.abc import Callable
from threading import Event

from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.clock import Clock, stamp
from fleetprompt_edge.errors import BridgeRefusedError, EdgeError, FolderGoneError, StoreError
from fleetprompt_edge.imap.session import Session
from fleetprompt_edge.ingest.reader import QueueFullError, Reader, Watched
from fleetprompt_edge.log import logger
from fleetprompt_edge.running.door import Door
from fleetprompt_edge.running.health import FOLDER, LAST_POLL, Health
from fleetprompt_edge.store import Store

_PROVEN = 300.0  # seconds that a connection must last before failures are forgotten


class Watch:
    """Watches one folder until ``stop`` is set. ``told`` is called when there is something to send."""

    def __init__(
        self,
        watched: Watched,
        door: Door,
        reader: Reader,
        store: Store,
        health: Health,
        clock: Clock,
        stop: Event,
        *,
        poll_seconds: float,
        told: Callable[[], None],
        chance: random.Random | None = None,
    ) -> None:
        self._watched = watched
        self._door = door
        self._reader = reader
        self._store = store
        self._health = health
        self._clock = clock
        self._stop = stop
        self._poll_seconds = poll_seconds
        self._told = told
        self._left = False
        self._session: Session | None = None
        self._backoff = Backoff(clock, first=2, longest=300, proven=_PROVEN, chance=chance)

    def run(self) -> None:
        """Until stopped, or the folder is left; only the store's failure ends it before."""
        while not self._over():
            wait = self.turn()
            if wait:
                self._clock.wait(self._stop, wait)
        self.hang_up()

    def turn(self) -> float:
        """Connect if need be, look once and wait for more; after a failure the seconds to pause."""
        place = FOLDER + self._watched.name
        try:
            if self._session is None:
                self._session = self._door.open()
            if self._reader.look(self._session, self._watched):
                self._told()
            self._looked(place)
            if not self._reader.unfinished(self._watched) and not self._session.changed():
                self._session.wait(self._stop, self._poll_seconds)
        except StoreError:
            self.hang_up()
            raise
        except QueueFullError as error:
            self._health.bad("queue", error)
            return self._poll_seconds
        except (FolderGoneError, BridgeRefusedError) as error:
            self._health.bad(place, error)
            self.hang_up()
            return self._backoff.failed(self._poll_seconds)
        except EdgeError as error:
            self.hang_up()
            if self._over():
                return 0.0
            self._health.bad("bridge", error)
            return self._backoff.failed()
        return 0.0

    def leave(self) -> None:
        """Watch this folder no longer; from another thread."""
        self._left = True
        self.hang_up()

    def _over(self) -> bool:
        return self._left or self._stop.is_set()

    def hang_up(self) -> None:
        """End the connection, also from another thread, which ends whatever waits for it."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _looked(self, place: str) -> None:
        for good in ("bridge", "queue", place):
            self._health.good(good)
        self._backoff.worked()
        logger.debug("looked", extra={"folder": self._watched.name})
        with self._store.transaction():
            self._store.notes.put(LAST_POLL + self._watched.name, stamp(self._clock.now()))
