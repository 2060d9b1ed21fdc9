"""The thread that fetches directives, works them off and reports them.

A report waits in the store until FleetPrompt has it, so that a crash between the work and its report loses
nothing (trap 5). A lease is renewed every 20 seconds while its directive is worked on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.clock import Clock
from fleetprompt_edge.errors import EdgeError, PlatformBusyError, PlatformRefusedError, StoreError
from fleetprompt_edge.log import logger
from fleetprompt_edge.running.health import Health
from fleetprompt_edge.sending.sender import Sender
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Leased, Platform

_WAIT = 25  # seconds that a poll may wait
_RENEW = 20.0
_BUDGET = 270.0  # seconds after which a lease is not renewed any more; the platform allows 300


class Errands:
    """Until ``stop`` is set. ``at_rest`` is set while nothing is worked on."""

    def __init__(
        self,
        store: Store,
        platform: Platform,
        sender: Sender,
        health: Health,
        clock: Clock,
        stop: Event,
        told: Event,
    ) -> None:
        self._store = store
        self._platform = platform
        self._sender = sender
        self._health = health
        self._clock = clock
        self._stop = stop
        self._told = told
        self._backoff = Backoff(clock, first=1, longest=300, proven=60)
        self.at_rest = Event()
        self.at_rest.set()

    def run(self) -> None:
        """Until stopped; only the store's failure ends it before."""
        longest = (
            0  # the first answer, and that after a failure, comes at once: it says that all is well
        )
        while not self._stop.is_set():
            wait = self.turn(longest)
            longest = 0 if wait else _WAIT
            if wait:
                self._clock.wait(self._stop, wait)

    def turn(self, wait: int) -> float:
        """Report, fetch and work once; after a failure the seconds to pause."""
        try:
            self.report()
            found = self._platform.directives(wait)
            self._backoff.worked()
            for leased in found:
                # What comes after the end is left to its lease: the store may be closed.
                if not self._stop.is_set():
                    self._work(leased)
                    self.report()
        except StoreError:
            raise
        except PlatformBusyError as error:
            return self._backoff.failed(error.retry_after or 0.0)
        except EdgeError as error:
            if not self._stop.is_set():
                self._health.bad("directives", error)
            return self._backoff.failed()
        if not self._stop.is_set():
            self._health.good("directives")
        return 0.0

    def report(self) -> None:
        """Tell how attempts ended; what FleetPrompt does not want any more is forgotten."""
        if self._stop.is_set():
            return
        with self._store.transaction():
            waiting = self._store.sends.reports()
        for one in waiting:
            state = None
            try:
                state = self._platform.report(one.directive_id, one.body)
            except PlatformRefusedError as error:
                logger.warning(
                    "a report was refused",
                    extra={"directive": one.directive_id, "problem": error.problem},
                )
            with self._store.transaction():
                self._store.sends.drop_report(one)
                if state == "failed":
                    self._sender.given_up(one)

    def _work(self, leased: Leased) -> None:
        self.at_rest.clear()
        try:
            with self._kept(leased):
                self._sender.work(leased, lambda: self._platform.keep(leased))
            self._told.set()
        finally:
            self.at_rest.set()

    @contextmanager
    def _kept(self, leased: Leased) -> Iterator[None]:
        done = Event()

        def renew() -> None:
            end = self._clock.monotonic() + _BUDGET
            while not done.wait(_RENEW) and self._clock.monotonic() < end:
                try:
                    if not self._platform.keep(leased):
                        return
                except EdgeError as error:
                    logger.warning("a lease could not be renewed", extra={"code": error.code})

        thread = Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
