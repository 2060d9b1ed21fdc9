"""What a process is doing at this moment: which connections listen, what waits, when it last began work."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fleetprompt.telemetry.catalogue import LISTENER_LOSSES
from fleetprompt.telemetry.counting import RECORDER

Channel = Literal["signals", "directives"]


@dataclass(slots=True, eq=False)
class ListeningState:
    """One listening connection, told by whoever holds it. Times are of the monotonic clock."""

    channel: Channel
    connected: bool = False
    since: float = field(default_factory=time.monotonic)
    heard_at: float | None = None

    def up(self) -> None:
        """It listens."""
        self.connected, self.since = True, time.monotonic()

    def heard(self) -> None:
        """A notice came."""
        self.heard_at = time.monotonic()

    def lost(self) -> None:
        """It is gone, or was not made."""
        RECORDER.add(LISTENER_LOSSES, (self.channel,))
        if self.connected:
            self.connected, self.since = False, time.monotonic()


@dataclass(slots=True)
class ProcessState:
    """The moment of one process. ``waiting_signals`` is asked, not told, so that ingest pays nothing."""

    listeners: list[ListeningState] = field(default_factory=list)
    last_start_at: float | None = None
    waiting_signals: Callable[[], int] = int

    def watch(self, listener: ListeningState) -> None:
        """Somebody wants to listen from now on."""
        listener.since = time.monotonic()
        self.listeners.append(listener)

    def forget(self, listener: ListeningState) -> None:
        """Nobody wants to listen any more."""
        if listener in self.listeners:
            self.listeners.remove(listener)

    def started(self) -> None:
        """A directive was claimed here just now."""
        self.last_start_at = time.monotonic()

    def seconds_since_start(self) -> float | None:
        """How long ago a directive was last claimed here; None if never."""
        return None if self.last_start_at is None else time.monotonic() - self.last_start_at

    def seconds_deaf(self, channel: Channel) -> float:
        """For how long a channel's listener has been without its connection; 0 if it is there."""
        now = time.monotonic()
        return max(
            (
                now - one.since
                for one in self.listeners
                if one.channel == channel and not one.connected
            ),
            default=0.0,
        )

    def describe(self) -> dict[str, Any]:
        """As it is written to the table: JSON, ages in seconds."""
        now = time.monotonic()
        return {
            "waiting_signals": self.waiting_signals(),
            "listeners": [
                {
                    "channel": one.channel,
                    "connected": one.connected,
                    "heard_seconds_ago": None if one.heard_at is None else now - one.heard_at,
                }
                for one in self.listeners
            ],
        }


PROCESS = ProcessState()
