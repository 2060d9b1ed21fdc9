"""``python -m tests.chaos.live_drains``: kill and stop drain runs of the whole platform, as it is.

Nobody helps: the sensor starts another run, which takes the directive up when its lease has run out.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from demo.story import Api, create_tenant
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import libpq_url
from fleetprompt.directives.runner import LEASE_SECONDS
from fleetprompt.runtime.platform import Platform, running_platform
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import get_tenant
from tests.ports import free_port

# Two lease times, the start of a run, and a machine that has other things to do.
TAKEN_UP_WITHIN_SECONDS = 180.0
PACKAGE = "mattermost_daily_ops_digest"
SLUG = "live"
_STARTED = re.compile(r"Started process for run \(pid: (\d+)\)")
Found = TypeVar("Found")


@dataclass
class Live:
    """A running platform and one tenant with an installation."""

    platform: Platform
    api: Api
    installation_id: str

    def hold_installation(self) -> psycopg.Connection[Any]:
        """Lock the row that a directive about the installation needs; closing lets go."""
        connection = psycopg.connect(self.platform.owner_url)
        connection.execute(
            f'SELECT id FROM "org_{SLUG}".installations WHERE id = %s FOR UPDATE',
            (self.installation_id,),
        )
        return connection

    def configure(self, time_of_day: str) -> str:
        """Ask for another configuration; the directive's id."""
        config = {"timezone": "Europe/Berlin", "schedule_time": time_of_day}
        path = f"/api/v1/installations/{self.installation_id}/config"
        return str(self.api.call("PUT", path, json={"config": config})["directive_id"])

    def directive(self, directive_id: str) -> dict[str, Any]:
        """As the API shows it, with its transitions."""
        return dict(self.api.call("GET", f"/api/v1/directives/{directive_id}"))

    def worker_of(self, directive_id: str) -> str | None:
        """Who holds the directive's lease."""
        with psycopg.connect(self.platform.owner_url) as connection:
            row = connection.execute(
                f'SELECT lease_owner FROM "org_{SLUG}".directives WHERE id = %s', (directive_id,)
            ).fetchone()
        return row[0] if row else None

    def process_of(self, worker: str) -> int:
        """The process id of the run that the worker is, by Dagster's own record."""
        url = libpq_url(self.platform.environment["FLEETPROMPT_DAGSTER_DATABASE_URL"])
        run_id = worker.removeprefix("dagster:")
        with psycopg.connect(url) as connection:
            events = connection.execute(
                "SELECT event FROM event_logs WHERE run_id = %s ORDER BY id", (run_id,)
            ).fetchall()
        return next(int(found[1]) for (event,) in events if (found := _STARTED.search(event)))


async def _operator_key(settings: Settings) -> str:
    async with Database.application(settings) as database, database.platform() as session:
        tenant = await get_tenant(session, settings.operations_tenant)
        request = KeyRequest(kind="user", name="live drains", role="owner")
        return (await issue_key(session, settings, tenant, request))[1]


def wait_for(what: str, look: Callable[[], Found | None], seconds: float) -> Found:
    """What ``look`` finds within ``seconds``; AssertionError otherwise."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := look():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} did not come within {seconds:.0f} s")


@contextlib.contextmanager
def live(folder: Path) -> Iterator[Live]:
    """The whole platform with one tenant, whose installation a first drain has made."""
    settings = Settings(
        state_dir=folder,
        api_port=free_port(),
        dagster_port=free_port(),
        code_server_port=free_port(),
        log_format="json",
        database_url=None,
    )
    with running_platform(settings, log_stream=io.StringIO()) as platform:
        key = asyncio.run(_operator_key(platform.settings))
        operator = Api(platform.urls["api"], key)
        api = Api(platform.urls["api"], create_tenant(operator, SLUG, "Live"))
        operator.close()
        try:
            asked = api.call("POST", f"/api/v1/packages/{PACKAGE}/install", json={})
            found = Live(platform, api, str(asked["installation_id"]))
            wait_for(
                "the installation",
                lambda: found.directive(asked["directive_id"])["state"] == "succeeded",
                120,
            )
            yield found
        finally:
            api.close()


def harm_the_drain(world: Live, harm: signal.Signals, time_of_day: str) -> tuple[int, float]:
    """Send ``harm`` to the drain that is at work; its process id, and the seconds until all was done.

    AssertionError unless another drain did the work, once, within two lease times and some.
    """
    with world.hold_installation() as lock:
        directive_id = world.configure(time_of_day)
        worker = wait_for("an attempt", lambda: world.worker_of(directive_id), 60)
        pid = world.process_of(worker)
        begun = time.monotonic()
        os.kill(pid, harm)
        if harm == signal.SIGSTOP:
            # Until the statement that waits for the row has given up: it would get the row for a
            # process that stands still.
            time.sleep(35)
        lock.rollback()
    wait_for(
        "the end of the directive",
        lambda: world.directive(directive_id)["finished_at"],
        TAKEN_UP_WITHIN_SECONDS - (time.monotonic() - begun),
    )
    seconds = time.monotonic() - begun
    transitions = world.directive(directive_id)["transitions"]
    states = [one["to_state"] for one in transitions]
    assert states == ["requested", "pending", "running", "pending", "running", "succeeded"], states
    *_, rescued, again, ended = (one["changed_by"] for one in transitions)
    assert worker != rescued == again == ended, transitions
    return pid, seconds


def main() -> None:
    """Kill drains and stop others, one after the other; print how long each took."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.live_drains", description=__doc__)
    parser.add_argument("--times", type=int, default=2, help="how often each is done")
    arguments = parser.parse_args()
    took: dict[str, list[float]] = {"SIGKILL": [], "SIGSTOP": []}
    stopped = []
    with tempfile.TemporaryDirectory() as folder, live(Path(folder)) as world:
        try:
            for number in range(arguments.times):
                for harm in (signal.SIGKILL, signal.SIGSTOP):
                    minute = f"0{7 + number}:{10 + harm.value}"
                    pid, seconds = harm_the_drain(world, harm, minute)
                    took[harm.name].append(round(seconds, 1))
                    print(f"{harm.name}: taken up and done in {seconds:.1f} s", file=sys.stderr)
                    if harm == signal.SIGSTOP:
                        stopped.append(pid)
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    print(json.dumps({"lease_seconds": LEASE_SECONDS, "seconds": took}))


if __name__ == "__main__":
    main()
