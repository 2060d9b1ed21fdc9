"""``python -m tests.chaos.posting_kills``: kill workers while they post digests, then count posts.

First a worker is killed at every suspension of the posting protocol in each mode, then workers are
killed at random moments, several times for one digest, while Mattermost accepts and drops, saves late,
answers 500, has lagging replicas and two nodes. At the end bot and hybrid modes have exactly one
post of every digest and know its id; webhook mode has at most one, and a digest whose end is not certain is
``unknown``. Exit code 1 and the first differences otherwise.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mattermostautodriver import TypedDriver

from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.outbound.delivery import key_of
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import create_tenant
from tests.chaos import killing
from tests.chaos.ground import platform as running_platform
from tests.chaos.killing import KillCount
from tests.doubles.mattermost import Behaviour, RunningMattermost, running_mattermost
from tests.packages.installed import MODES, Platform, connected_as

PATIENCE = 0.5  # seconds; above everything that the faults below delay
_MOST_ROUNDS = 60
_ENDED = ("succeeded", "failed", "unknown", "cancelled")

# What Mattermost does to the first writing request of a digest, and how it reads.
TROUBLES: tuple[dict[str, Any], ...] = (
    {},
    {"fault": "drop_before_save", "fault_requests": 1},
    {"fault": "drop_after_save", "fault_requests": 1},
    {"fault": "reset_after_save", "fault_requests": 1},
    {"fault": "error_after_save", "fault_requests": 1},
    {"fault": "save_after_drop", "fault_requests": 1, "late_save_seconds": 0.3},
    {"fault": "drop_after_save", "fault_requests": 1, "nodes": 2, "replica_lag_seconds": 0.3},
    {
        **{"fault": "save_after_drop", "fault_requests": 1, "late_save_seconds": 0.1},
        **{"nodes": 2, "replicas": 2, "replica_lag_seconds": 0.3},
    },
    {"save_seconds": 0.2, "nodes": 2},
    {"rate_limited": True, "rate_limit_requests": 2, "retry_after_seconds": 1},
)


@dataclass
class Outcome(KillCount):
    """What was done in one mode and what was found; ``suspensions`` are of the longest protocol."""

    digests: int = 0
    suspensions: int = 0
    posts: int = 0
    unknown: int = 0
    read_back: int = 0


class Forks:
    """The process that forks workers; ``further`` is added to its environment."""

    def __init__(self, settings: Settings, owner_url: str, **further: str) -> None:
        key = settings.master_key
        environment = {
            **os.environ,
            "FLEETPROMPT_DATABASE_URL": owner_url,
            "FLEETPROMPT_APP_DATABASE_URL": application_url(settings),
            "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
            "FLEETPROMPT_MASTER_KEY": key.get_secret_value() if key else "",
            "FLEETPROMPT_MASTER_KEY_SOURCE": "env",
            "FLEETPROMPT_ALLOWED_PRIVATE_NETWORKS": '["127.0.0.0/8"]',
            "FLEETPROMPT_ALLOW_PLAIN_HTTP": "true",
            "FLEETPROMPT_ABSENCE_SECONDS": str(PATIENCE),
            **further,
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.posting_worker"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def work(
        self, tenant: Any, kill_at: int | None = None, kill_after: float | None = None
    ) -> tuple[int, int]:
        """One worker's life: its exit code, negative for a signal, and the protocol's suspensions."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "tenant": [str(tenant.id), tenant.slug, tenant.schema],
            "kill_at": kill_at,
            "kill_after": kill_after,
        }
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        return ended["ended"], ended["suspensions"]

    def close(self) -> None:
        """End the process, after the worker that it may still have."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        finally:
            assert self._process.stdout is not None
            self._process.stdout.close()


class Kills:
    """One mode's kills, with a tenant and a Mattermost of its own."""

    def __init__(self, mode: str, forks: Forks, mattermost: RunningMattermost) -> None:
        self.mode, self._forks, self.mattermost = mode, forks, mattermost
        self.outcome = Outcome()
        self._duration = 0.5

    async def set_up(self, database: Database, settings: Settings) -> None:
        """Connect, and see how long a worker takes that nobody disturbs."""
        tenant = await create_tenant(settings, slug=f"kills-{self.mode}", name=self.mode)
        self._mine = Platform(database, settings, tenant)
        self._installation = await connected_as(self._mine, self.mattermost, self.mode)
        begun = time.monotonic()
        await self.digest({})
        self._duration = time.monotonic() - begun

    async def every_suspension(self, every: int) -> None:
        """Kill at the first suspension, and at each ``every``-th after it, one digest for each."""
        at = 1
        while await self.digest({}, {"kill_at": at}) == -signal.SIGKILL:
            at += every

    async def random_kills(self, chance: random.Random, most: int) -> None:
        """One digest in some trouble, killed up to ``most`` times at random moments."""
        times = [chance.uniform(0.0, self._duration) for _ in range(chance.randint(1, most))]
        trouble = chance.choice(TROUBLES)
        await self.digest(trouble, *({"kill_after": seconds} for seconds in times))

    async def digest(self, trouble: dict[str, Any], *workers: dict[str, Any]) -> int | None:
        """Ask for a digest, let these workers try, then others until it has ended; then count.

        Returns how the first worker ended.
        """
        mine = self._mine
        self.mattermost.state.behaviour = Behaviour(**trouble)
        directive, _ = await mine.run_now(self._installation.id)
        first: int | None = None
        for round_ in range(_MOST_ROUNDS):
            await mine.hours_pass()
            kind = workers[round_] if round_ < len(workers) else {}
            ended, suspensions = await asyncio.to_thread(self._forks.work, mine.tenant, **kind)
            first = ended if first is None else first
            if ended == -signal.SIGKILL:
                self.outcome.kills += 1
            elif ended != 0:
                self.outcome.differences.append(f"{self.mode}: a worker ended with {ended}")
            self.outcome.suspensions = max(self.outcome.suspensions, suspensions)
            message = await self._message(directive.id)
            if round_ + 1 >= len(workers) and await self._has_ended(directive.id, message):
                break
            if message is not None and message.state in ("unknown", "posted", "retryable"):
                await asyncio.sleep(PATIENCE + 0.05)
        self.outcome.digests += 1
        await self._count(trouble, directive.id)
        return first

    async def _has_ended(self, directive_id: UUID, message: OutboundMessage | None) -> bool:
        ended = (await self._mine.directive(directive_id)).state in _ENDED
        if self.mode == "webhook" or message is None:
            return ended
        return ended and message.state == "posted" and message.remote_id is not None

    async def _message(self, directive_id: UUID) -> OutboundMessage | None:
        return next((m for m in await self._mine.ledger() if m.directive_id == directive_id), None)

    async def _count(self, trouble: dict[str, Any], directive_id: UUID) -> None:
        # What is still on its way is saved by then.
        await asyncio.sleep(trouble.get("late_save_seconds", 0.0))
        self.mattermost.state.behaviour = Behaviour()
        message = await self._message(directive_id)
        about = f"{self.mode} {trouble} {directive_id}"
        differences = self.outcome.differences
        if message is None:
            differences.append(f"{about}: nothing in the ledger")
            return
        key = key_of(message.id)
        posts = [
            post
            for post in self.mattermost.posts
            if post.props.get("fleetprompt", {}).get("key") == key
        ]
        self.outcome.posts += len(posts)
        if len(posts) > 1:
            differences.append(f"{about}: posted {len(posts)} times")
        if message.state == "posted" and not posts:
            differences.append(f"{about}: posted, says the ledger, and it is not there")
        if self.mode == "webhook":
            if message.state not in ("posted", "unknown"):
                differences.append(f"{about}: ended {message.state}")
            if message.state == "unknown":
                self.outcome.unknown += 1
                if (await self._mine.directive(directive_id)).state != "unknown":
                    differences.append(f"{about}: unknown, and not shown as such")
            return
        self.outcome.read_back += message.proof == "read_back"
        if message.state != "posted" or len(posts) != 1:
            differences.append(f"{about}: ended {message.state} with {len(posts)} posts")
        elif (message.remote_id, (message.permalink or "")[-26:]) != (posts[0].id, posts[0].id):
            differences.append(f"{about}: another id than the post's")

    def seen_by_others(self) -> int:
        """Posts of ours that an independent client pages through."""
        options = {"scheme": "http", "url": "127.0.0.1", "port": self.mattermost.port}
        state = self.mattermost.state
        with TypedDriver({**options, "token": state.bot_token, "max_retries": 0}) as client:
            client.login()
            seen, page = 0, 0
            while True:
                found = client.posts.get_posts_for_channel(
                    state.reports.id, page=page, per_page=100
                )
                seen += sum("fleetprompt" in one["props"] for one in found["posts"].values())
                if not found["has_next"]:
                    return seen
                page += 1


async def run(
    kills: int,
    *,
    every: int = 1,
    seed: int = 0,
    progress: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> dict[str, Outcome]:
    """Kill at every ``every``-th suspension, then at random until ``kills`` in all; by mode."""
    with contextlib.ExitStack() as stack:
        settings, server = stack.enter_context(running_platform())
        settings = settings.model_copy(
            update={"manual_runs_per_hour": 1_000_000, "absence_seconds": PATIENCE}
        )
        tests = []
        for mode in MODES:
            forks = Forks(settings, server.owner_url)
            stack.callback(forks.close)
            tests.append(Kills(mode, forks, stack.enter_context(running_mattermost())))

        async def one(test: Kills, chance: random.Random) -> None:
            await test.set_up(database, settings)
            await test.every_suspension(every)
            while test.outcome.kills < kills / len(tests):
                await test.random_kills(chance, 3)
                progress([one.outcome for one in tests])
            # Posts of digests and nothing else are in the channel.
            seen = await asyncio.to_thread(test.seen_by_others)
            if seen != test.outcome.posts:
                test.outcome.differences.append(f"an independent client sees {seen} posts")

        async with Database.application(settings) as database:
            await asyncio.gather(
                *(one(test, random.Random(seed + n)) for n, test in enumerate(tests))
            )
    return {test.mode: test.outcome for test in tests}


def main() -> None:
    """Read the arguments, run, print what was found."""
    killing.main("tests.chaos.posting_kills", __doc__, run)


if __name__ == "__main__":
    main()
