"""The thread that sends what waits, and beats the heart."""

import random
from threading import Event

from fleetprompt_edge import __version__
from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.clock import Clock, stamp
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import EdgeError, PlatformAuthError, PlatformBusyError, StoreError
from fleetprompt_edge.log import logger
from fleetprompt_edge.running.health import LAST_POLL, Health
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.uploader import Uploader

_LOOK = 2.0  # seconds between looks at a queue that others fill too
_AUTH_PATIENCE = 6  # refusals of the key after which it is tried once an hour
_HOUR = 3600.0


class Post:
    """Sends until ``stop`` is set; ``wake`` says that there is something new."""

    def __init__(
        self,
        uploader: Uploader,
        health: Health,
        clock: Clock,
        stop: Event,
        wake: Event,
        chance: random.Random | None = None,
    ) -> None:
        self._uploader = uploader
        self._health = health
        self._clock = clock
        self._stop = stop
        self._wake = wake
        self._refusals = 0
        self._backoff = Backoff(clock, first=1, longest=300, proven=60, chance=chance)

    def run(self) -> None:
        """Until stopped; only the store's failure ends it before."""
        while not self._stop.is_set():
            wait = self.turn()
            if wait:
                self._clock.wait(self._stop, wait)
            elif not self._stop.is_set():
                self._clock.wait(self._wake, _LOOK)
                self._wake.clear()

    def turn(self) -> float:
        """Send until nothing waits; after a failure the seconds to pause."""
        sent = False
        try:
            while not self._stop.is_set() and (left := self._uploader.send_some()):
                sent = True
                self._health.good("platform")
                self._refusals = 0
                self._backoff.worked()
                logger.debug("sent", extra={"signals": left})
            if sent and not self._stop.is_set():
                self._uploader.tidy()
        except StoreError:
            raise
        except PlatformBusyError as error:
            self._report(error)
            return self._backoff.failed(error.retry_after or 0.0)
        except PlatformAuthError as error:
            self._report(error)
            self._refusals += 1
            return self._backoff.failed(_HOUR if self._refusals >= _AUTH_PATIENCE else 0.0)
        except EdgeError as error:
            self._report(error)
            return self._backoff.failed()
        return 0.0

    def _report(self, error: EdgeError) -> None:
        if not self._stop.is_set():
            self._health.bad("platform", error)


class Heart:
    """Queues a ``connector.heartbeat``; only the newest one waits."""

    def __init__(
        self, store: Store, health: Health, writer: Writer, clock: Clock, run_id: str
    ) -> None:
        self._store = store
        self._health = health
        self._writer = writer
        self._clock = clock
        self._run_id = run_id
        self._started = clock.monotonic()
        self._beats = 0

    def beat(self) -> None:
        """Tell how the connector is (seed §10.1)."""
        now = self._clock.now()
        self._beats += 1
        problems = [
            {name: one[name] for name in ("place", "kind", "code", "since")}
            for one in self._health.problems()
        ]
        with self._store.transaction():
            polls = self._store.notes.under(LAST_POLL)
            backlog = self._store.queue.backlog()
            data = {
                "version": __version__,
                "uptime_seconds": int(self._clock.monotonic() - self._started),
                "last_poll_at": max(polls.values(), default=None),
                "last_post_at": self._store.notes.get("last_post"),
                "folders": [{"name": name, "last_poll_at": at} for name, at in polls.items()],
                "queue": {
                    "signals": backlog.signals,
                    "bytes": backlog.bytes,
                    "dead_letters": backlog.dead_letters,
                },
                "problems": problems,
            }
            signal = self._writer.write(
                "connector.heartbeat",
                now,
                data,
                dedupe_key=self._writer.key("connector_heartbeat", self._run_id, self._beats),
                correlation_id=f"connector:{self._writer.profile.connector_id}",
            )
            self._store.queue.drop_type("connector.heartbeat")
            self._store.queue.put(signal.dedupe_key, signal.type, signal.body, int(now.timestamp()))
            self._store.notes.put("alive_at", stamp(now))
