"""How one tells that a process does its work: quick questions, each a plain function."""

import http.client
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import psycopg

_PATIENCE_SECONDS = 2.0
# Without these three nothing is scheduled, sensed or taken from the queue.
_DAEMONS = ("SCHEDULER", "SENSOR", "QUEUED_RUN_COORDINATOR")


def answers_http(url: str) -> Callable[[], bool]:
    """Whether a GET of ``url`` (plain HTTP) is answered with a status below 400."""
    parts = urlsplit(url)

    def ask() -> bool:
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=_PATIENCE_SECONDS
        )
        try:
            connection.request("GET", parts.path or "/")
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask


def accepts_connections(host: str, port: int) -> Callable[[], bool]:
    """Whether something listens there. Dagster's code server does so once its code is loaded."""

    def ask() -> bool:
        try:
            socket.create_connection((host, port), timeout=_PATIENCE_SECONDS).close()
        except OSError:
            return False
        return True

    return ask


def daemon_beats(dagster_database_url: str) -> Callable[[], bool]:
    """Whether Dagster's daemons have written a heartbeat since now; asked twice a second at most.

    Reads the table that ``dagster-daemon liveness-check`` reads, without its three CPU seconds.
    """
    since = datetime.now(UTC).replace(tzinfo=None)
    last_asked = 0.0

    def ask() -> bool:
        nonlocal last_asked
        if time.monotonic() - last_asked < 0.5:
            return False
        last_asked = time.monotonic()
        try:
            with psycopg.connect(dagster_database_url, connect_timeout=2) as connection:
                beating = connection.execute(
                    "SELECT count(*) FROM daemon_heartbeats"
                    " WHERE daemon_type = ANY(%s) AND timestamp >= %s",
                    (list(_DAEMONS), since),
                ).fetchone()
        except psycopg.Error:
            return False
        return beating is not None and beating[0] == len(_DAEMONS)

    return ask
