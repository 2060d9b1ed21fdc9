"""``python -m tests.chaos.connector``: kill the platform, Dovecot and the connector, then count.

Real mail arrives in a real mailbox, people ask for mail to be sent and approve it, and everything between is
killed with SIGKILL at random moments and started again; UIDVALIDITY changes in between. At the end each mail
must be there as one signal, each approved mail must have been sent once, and what the platform shows of it
must be true. Exit code 1 and the first differences otherwise.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetprompt.db.engine import Database
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.api.support import Keys, bearer
from tests.chaos.connector_count import Outcome, count
from tests.chaos.connector_mail import mails
from tests.chaos.connector_office import Office, office
from tests.chaos.connector_world import Asking, World
from tests.chaos.ground import platform
from tests.chaos.kills import ApiProcess
from tests.edge.connecting import customer
from tests.edge.dovecot import dovecot
from tests.edge.ingesting import CONNECTOR

FOLDERS = ("INBOX", "Orders")
_COPIED = 0.1  # of the mails are in both folders, under one id of Proton's
_ENDED = ("succeeded", "failed", "unknown", "cancelled", "rejected", "expired")
Progress = Callable[[str], None]


@dataclass
class Plan:
    """How much of what; ``folder`` with real mails, if they are not to be made. ``hurry``: how many times as
    fast the connector's pauses pass, and what Bridge shows late."""

    mails: int = 5_000
    sends: int = 200
    kills: int = 50
    renumberings: int = 2
    seed: int = 0
    folder: Path | None = None
    pause: float = 3.0
    patience: float = 1_800.0
    leases_end_at_once: bool = False
    hurry: float = 1.0


class Chaos:
    """One run."""

    def __init__(
        self, plan: Plan, world: World, sent: Office, asking: Asking, progress: Progress
    ) -> None:
        self.outcome = Outcome(mails=plan.mails, sends=plan.sends)
        self.plan = plan
        self.world = world
        self.office = sent
        self.asking = asking
        self.progress = progress
        self.chance = random.Random(plan.seed)
        self.subjects: list[str] = []

    def run(self) -> None:
        """Deliver, kill, wait until all is quiet, and count."""
        plan = self.plan
        victims = self._victims()
        renumber_at = {
            round((number + 1) * plan.kills / (plan.renumberings + 1))
            for number in range(plan.renumberings)
        }
        made = mails(plan.mails, plan.seed, plan.folder)
        for number, victim in enumerate(victims):
            self._deliver(made, plan.mails * (number + 1) // plan.kills)
            if number in renumber_at:
                self._renumber(FOLDERS[number % 2])
            time.sleep(self.chance.uniform(0.1, plan.pause))
            self.world.kill(victim, self.chance.choice([0.0, 0.0, 1.0]))
            self.progress(f"{number + 1} of {plan.kills}: {victim}")
        self._deliver(made, plan.mails)
        self._wait()
        count(self.outcome, self.world, self.office, self.subjects, self.asking.failure)

    def _victims(self) -> list[str]:
        shares = {
            "connector": 20,
            "dovecot": 15,
            "api": 11,
            "postgres": 4 if self.world.server else 0,
        }
        names = self.chance.choices(list(shares), list(shares.values()), k=self.plan.kills)
        # A short run, too, has some of each.
        some = [name for name, share in shares.items() if share][: len(names)]
        names[: len(some)] = some
        self.chance.shuffle(names)
        self.outcome.kills = dict(Counter(names))
        return names

    def _deliver(self, made: Iterator[tuple[str, bytes]], up_to: int) -> None:
        while len(self.subjects) < up_to:
            subject, mail = next(made)
            folders = FOLDERS if self.chance.random() < _COPIED else [self.chance.choice(FOLDERS)]
            for folder in folders:
                self.world.bridge.drop([mail], folder)
            self.subjects.append(subject)

    def _renumber(self, folder: str) -> None:
        # Only a server that runs says whose mailbox it is.
        for _ in range(20):
            with suppress(AssertionError, subprocess.TimeoutExpired):
                self.world.bridge.renumber(folder)
                self.progress(f"UIDVALIDITY of {folder}")
                return
            time.sleep(0.5)
        raise AssertionError("UIDVALIDITY could not be changed")

    def _wait(self) -> None:
        end = time.monotonic() + self.plan.patience
        told = 0.0
        while time.monotonic() < end and self.asking.failure is None:
            counts = self._counts()
            if counts == (len(self.subjects), self.plan.sends):
                return
            if time.monotonic() - told > 10:
                told = time.monotonic()
                self.progress(f"signals and ended sends: {counts}")
            time.sleep(0.5)

    def _counts(self) -> tuple[int, int] | None:
        rows = self.world.rows(
            "SELECT (SELECT count(*) FROM {schema}.signals WHERE type = 'email.inbound.received'),"
            f" (SELECT count(*) FROM {{schema}}.directives WHERE state IN {_ENDED}"
            " AND (SELECT count(*) FROM {schema}.signals WHERE subject_id = directives.id::text"
            " AND type IN ('email.outbound.sent', 'email.outbound.failed')) > 0)"
        )
        return (int(rows[0][0]), int(rows[0][1])) if rows else None


async def _prepare(settings: Settings) -> tuple[Tenant, str, dict[str, str]]:
    tenant = await create_tenant(
        settings, slug=f"chaos-{os.getpid()}-{time.time_ns() % 10**6}", name="Chaos"
    )
    async with Database.application(settings) as database:
        keys = Keys(database, settings)
        key = await keys.connector(tenant, CONNECTOR)
        user_id = await keys.member(tenant, f"ada@{tenant.slug}.example.org", "owner")
        return tenant, key, bearer(await keys.user(tenant, user_id=user_id))


@contextmanager
def _running(
    plan: Plan, settings: Settings, server: EmbeddedPostgres | None, progress: Progress
) -> Iterator[Chaos]:
    assert settings.database_url is not None
    tenant, key, headers = asyncio.run(_prepare(settings))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bridge = stack.enter_context(dovecot())
        with bridge.client() as client:
            client.create_folder("Orders")
        sent = stack.enter_context(office(bridge, plan.seed, plan.hurry))
        api = ApiProcess(settings, settings.database_url.get_secret_value())
        stack.callback(api.kill)
        api.start()
        url = f"http://127.0.0.1:{api.port}"
        made = customer(
            folder / "customer",
            bridge,
            url,
            key,
            bridge__smtp__port=sent.port,
            mailbox__folders=FOLDERS,
            sending__allowed_from_addresses=("me@proton.me",),
            sending__max_recipients_per_hour=10_000,
        )
        world = World(settings, server, tenant, bridge, api, made)
        world.leases_end_at_once = plan.leases_end_at_once
        world.hurry = plan.hurry
        stack.callback(world.kill_connector)
        asyncio.run(api.ready())
        world.start_connector()
        _until_it_looks(world)
        asking = Asking(url, headers, plan.sends, plan.kills * plan.pause / 2)
        stack.callback(asking.stop)
        yield Chaos(plan, world, sent, asking, progress)


def _until_it_looks(world: World) -> None:
    """Until the connector has begun: what is delivered from now on is new."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        rows = world.rows(
            "SELECT jsonb_array_length(data->'folders') FROM {schema}.signals"
            " WHERE type = 'connector.heartbeat' ORDER BY occurred_at DESC LIMIT 1"
        )
        if rows and rows[0][0] == len(FOLDERS):
            return
        time.sleep(0.1)
    raise AssertionError(f"the connector does not look: {world.customer.log}")


def run(
    plan: Plan,
    settings: Settings | None = None,
    progress: Progress = lambda line: None,
) -> Outcome:
    """Everything, on a platform of its own whose PostgreSQL is killed too; on ``settings``' without."""
    with ExitStack() as stack:
        server = None
        if settings is None:
            settings, server = stack.enter_context(platform())
        chaos = stack.enter_context(_running(plan, settings, server, progress))
        chaos.run()
        return chaos.outcome


def main() -> None:
    """Read the arguments, run, print what was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.connector", description=__doc__)
    parser.add_argument("--mails", type=int, default=5_000)
    parser.add_argument("--sends", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--renumberings", type=int, default=2, help="changes of UIDVALIDITY")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="real mails to use in place of made ones")
    arguments = parser.parse_args()
    begun = time.monotonic()

    def progress(line: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {line}", file=sys.stderr, flush=True)

    outcome = run(Plan(**vars(arguments)), progress=progress)
    summary = {
        **asdict(outcome),
        "differences": outcome.differences[:20],
        "number_of_differences": len(outcome.differences),
        "seconds": round(time.monotonic() - begun),
    }
    print(json.dumps(summary, indent=1))
    sys.exit(1 if outcome.differences else 0)


if __name__ == "__main__":
    main()
