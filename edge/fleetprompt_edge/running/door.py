"""The way into the mailbox, shared by all threads: one login at a time, none in vain.

Bridge answers a wrong password, an account that is still loading and one that was signed out with the
same words, and locks out who tries too often (research/edge.md §2.2). So after a refusal nobody tries again
before a time that grows, and only a refusal that lasts is told as a wrong password (trap 26).
"""

import random
from collections.abc import Callable
from threading import Lock

from fleetprompt_edge.backoff import Backoff
from fleetprompt_edge.clock import Clock
from fleetprompt_edge.errors import BridgeLoginError, EdgeError
from fleetprompt_edge.imap.session import Session

GRACE = 180.0  # seconds in which a refused login may pass by itself


class BridgeNotReadyError(EdgeError):
    """Bridge refuses the login, as it does for a while after its start."""

    kind, code = "network", "bridge_not_ready"


class Door:
    """Opens sessions. ``knock`` connects and logs in, or raises an ``EdgeError``."""

    def __init__(
        self, knock: Callable[[], Session], clock: Clock, chance: random.Random | None = None
    ) -> None:
        self._knock = knock
        self._clock = clock
        self._turn = Lock()
        self._backoff = Backoff(clock, first=20, longest=900, proven=0, chance=chance)
        self._closed_until = 0.0
        self._refused_since: float | None = None

    def open(self) -> Session:
        """A session; raises without trying while the last refusal is too recent."""
        with self._turn:
            now = self._clock.monotonic()
            if self._refused_since is not None and now < self._closed_until:
                raise self._refusal(now)
            try:
                session = self._knock()
            except BridgeLoginError:
                now = self._clock.monotonic()
                if self._refused_since is None:
                    self._refused_since = now
                self._closed_until = now + self._backoff.failed()
                raise self._refusal(now) from None
            self._refused_since = None
            self._backoff.worked()
            return session

    def _refusal(self, now: float) -> EdgeError:
        if self._refused_since is not None and now - self._refused_since < GRACE:
            return BridgeNotReadyError(
                "Bridge does not let us in yet.",
                remedy="Wait a few minutes after Bridge's start; then compare user name and password.",
            )
        return BridgeLoginError(
            "Bridge refuses user name or password.",
            remedy="Compare them with those that Bridge shows for the account (not Proton's own password) "
            "and store the password: `fleetprompt-edge secrets set bridge-password`. Then restart the "
            "connector.",
        )
