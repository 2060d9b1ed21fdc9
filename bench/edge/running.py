"""The connector as a process: how much memory it takes at most, and how much of a core while nothing happens.

It runs against a real platform and the mailbox of ``mailbox``. While it runs, UIDVALIDITY changes, so that it
binds all of the mailbox again, and new mail comes in; the memory is the most it ever took (``VmHWM``).
"""

import asyncio
import os
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

import psycopg
from fleetprompt_edge.profile import Health, Mailbox
from rich.console import Console

from bench.edge.mailbox import MAILS
from bench.platform import Bench, platform, serving
from bench.report import Bound
from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from tests.edge.connecting import Customer, customer, until
from tests.edge.dovecot import Dovecot, mail
from tests.edge.ingesting import CONNECTOR

MOST_MEGABYTES = 60.0
MOST_OF_A_CORE = 1.0  # per cent
_NEW = 200
_QUIET_SECONDS = 60.0
_SETTLING_SECONDS = 5.0
_PATIENCE = 180.0
_USUAL = {
    "mailbox__poll_interval_seconds": Mailbox().poll_interval_seconds,
    "health__heartbeat_interval_seconds": Health().heartbeat_interval_seconds,
}


def measure(console: Console, server: Dovecot) -> list[Bound]:
    """Peak memory and idle load."""
    with (
        platform() as bench,
        serving(bench, "fleetprompt_api.app:app") as port,
        tempfile.TemporaryDirectory() as folder,
    ):
        url = f"http://127.0.0.1:{port}"
        key = asyncio.run(_connector_key(bench))
        made = customer(Path(folder) / "customer", server, url, key, **_USUAL)
        with made.running(debug=False) as process:
            until(lambda: _bound(made), "the whole mailbox", _PATIENCE)
            first = _bound(made)
            server.renumber()
            until(lambda: _bound(made) not in (None, first), "the mailbox, renumbered", _PATIENCE)
            console.print("running: the mailbox is bound")
            server.drop(mail(f"bench-{number}") for number in range(_NEW))
            until(lambda: told(bench) == _NEW, "the new mail", _PATIENCE)
            time.sleep(_SETTLING_SECONDS)
            before = _busy(process)
            time.sleep(_QUIET_SECONDS)
            load = 100 * (_busy(process) - before) / _QUIET_SECONDS
            peak = _peak(process)
    return [
        Bound("connector's memory, at most", peak, "MB", MOST_MEGABYTES),
        Bound("connector's load while nothing happens", load, "% of a core", MOST_OF_A_CORE),
    ]


async def _connector_key(bench: Bench) -> str:
    async with Database.application(bench.settings) as database, database.platform() as session:
        request = KeyRequest("conn", "bench", connector_id=CONNECTOR)
        return (await issue_key(session, bench.settings, bench.tenant, request))[1]


def _bound(made: Customer) -> int | None:
    """The UIDVALIDITY under which every mail has its place; None while some have none."""
    database = f"file:{made.state / 'connector.sqlite3'}?mode=ro"
    # The database is not there yet, or is being made.
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(database, uri=True)) as store:
        places, uidvalidity = store.execute(
            "SELECT (SELECT count(*) FROM places), (SELECT uidvalidity FROM folders)"
        ).fetchone()
        return int(uidvalidity) if places >= MAILS else None
    return None


def told(bench: Bench) -> int:
    """How many mails the platform has as signals."""
    with psycopg.connect(bench.server.owner_url) as connection:
        row = connection.execute(
            f"SELECT count(*) FROM {quote_identifier(bench.tenant.schema)}.signals"
            " WHERE type = 'email.inbound.received'"
        ).fetchone()
    return int(row[0]) if row else 0


def _busy(process: subprocess.Popen[bytes]) -> float:
    """Seconds of a core that it has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak(process: subprocess.Popen[bytes]) -> float:
    """The most memory that it held at any time, in MB of 10^6 bytes."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError("VmHWM")
