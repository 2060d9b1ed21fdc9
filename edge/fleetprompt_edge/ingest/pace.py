"""At most so many in a minute."""

from threading import Event, Lock

from fleetprompt_edge.clock import Clock


class Pace:
    """A bucket that holds a minute's worth and refills steadily; shared by threads."""

    def __init__(self, clock: Clock, per_minute: int) -> None:
        self._clock = clock
        self.per_minute = per_minute
        self._per_second = per_minute / 60
        self._most = float(per_minute)
        self._left = float(per_minute)
        self._at = clock.monotonic()
        self._turn = Lock()

    def take(self, stop: Event) -> bool:
        """Wait for a turn; False if told to stop before it came."""
        while not stop.is_set():
            with self._turn:
                now = self._clock.monotonic()
                self._left = min(self._most, self._left + (now - self._at) * self._per_second)
                self._at = now
                if self._left >= 1:
                    self._left -= 1
                    return True
                needed = (1 - self._left) / self._per_second
            self._clock.wait(stop, needed)
        return False
