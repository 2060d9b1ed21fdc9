"""Telling systemd how the service is (sd_notify(3)): one datagram of ``NAME=value`` lines each."""

import os
import socket
import sys
from collections.abc import Mapping


class Notice:
    """What systemd asked to be told, if it started this process; else every call does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        limit = environment.get("WATCHDOG_USEC", "")
        watched = environment.get("WATCHDOG_PID", str(os.getpid())) in _our_numbers()
        self._limit = int(limit) / 1_000_000 if watched and limit.isdecimal() else 0.0

    @property
    def watched(self) -> float:
        """Seconds without a word after which systemd restarts the service; 0: it does not."""
        return self._limit

    def say(self, **said: str) -> None:
        """Send it; what cannot be delivered is not needed."""
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        lines = "\n".join(f"{name}={' '.join(value.split())}" for name, value in said.items())
        # A name that begins with @ is an abstract one: no file, a NUL in its place.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            # A manager that does not listen must not hold up the mail.
            out.setblocking(False)
            try:
                out.sendto(lines.encode(), address)
            except OSError:
                return


def _our_numbers() -> set[str]:
    """The standalone program is two processes: one that unpacks it, which systemd knows, and its child."""
    standalone = bool(getattr(sys, "frozen", False))
    return {str(os.getpid()), *([str(os.getppid())] if standalone else [])}
