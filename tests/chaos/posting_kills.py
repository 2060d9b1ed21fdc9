"""``python -m tests.chaos.posting_kills``: kill workers while they post digests, then count posts.

First a worker is killed at every suspension of the posting protocol in each mode, then workers are
killed at random moments, several times for one digest, while Mattermost accepts and drops, saves late,
answers 500, has lagging replicas and two nodes. At the end bot and hybrid modes have exactly one
post of every digest and know its id; webhook mode has at most one, and a digest whose end is not certain is
``unknown``. Exit code 1 and the first differences otherwise.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from mattermostautodriver import TypedDriver
from sqlalchemy import select

from fleetprompt.db.engine import Database
from fleetprompt.outbound.delivery import key_of
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.chaos import killing
from tests.chaos.ground import platform as running_platform
from tests.chaos.killing import (
    PATIENCE_SECONDS,
    WORLD_SECONDS,
    Forks,
    KillCount,
    Worker,
    patience_passes,
    random_deaths,
    was_killed,
)
from tests.doubles.mattermost import Behaviour, RunningMattermost, running_mattermost
from tests.packages.installed import MODES, Platform, connected_as

_MOST_ROUNDS = 60
_ENDED = ("succeeded", "failed", "unknown", "cancelled")

# What Mattermost does to the first writing request of a digest, and how it reads; each delay is below
# WORLD_SECONDS.
TROUBLES: tuple[dict[str, Any], ...] = (
    {},
    {"fault": "drop_before_save", "fault_requests": 1},
    {"fault": "drop_after_save", "fault_requests": 1},
    {"fault": "reset_after_save", "fault_requests": 1},
    {"fault": "error_after_save", "fault_requests": 1},
    {"fault": "save_after_drop", "fault_requests": 1, "late_save_seconds": 0.1},
    {"fault": "drop_after_save", "fault_requests": 1, "nodes": 2, "replica_lag_seconds": 0.1},
    {
        **{"fault": "save_after_drop", "fault_requests": 1, "late_save_seconds": 0.1},
        **{"nodes": 2, "replicas": 2, "replica_lag_seconds": 0.1},
    },
    {"save_seconds": 0.1, "nodes": 2},
    {"rate_limited": True, "rate_limit_requests": 2, "retry_after_seconds": 1},
    {"upload_fault": "drop_after_save", "upload_fault_requests": 1},
    {"upload_fault": "error_after_save", "upload_fault_requests": 1},
    {"may_upload": False, "fault": "drop_after_save", "fault_requests": 1},
)


@dataclass
class Outcome(KillCount):
    """What was done in one mode and what was found; ``suspensions`` are of the longest protocol."""

    digests: int = 0
    suspensions: int = 0
    posts: int = 0
    unknown: int = 0
    read_back: int = 0


class Kills:
    """Kills in one mode, with a tenant and a Mattermost of their own; others of the mode go on beside them.

    ``outcome`` is the mode's.
    """

    def __init__(
        self, mode: str, outcome: Outcome, forks: Forks, mattermost: RunningMattermost
    ) -> None:
        self.mode, self._forks, self.mattermost = mode, forks, mattermost
        self.outcome = outcome
        self._posted = 0
        # Seconds of the latest worker that posted a digest undisturbed.
        self._duration = 0.5

    async def set_up(self, database: Database, settings: Settings, tenant: Tenant) -> None:
        """Connect, and post a digest that nobody disturbs."""
        self._mine = Platform(database, settings, tenant)
        self._installation = await connected_as(self._mine, self.mattermost, self.mode)
        await self.digest({})

    async def every_suspension(self, first: int, every: int, done: Callable[[], None]) -> None:
        """Kill at the ``first`` suspension, and at each ``every``-th after it, one digest for each."""
        at = first
        while was_killed(await self.digest({}, {"kill_at": at})):
            at += every
            done()

    async def random_kills(self, chance: random.Random, most: int) -> None:
        """One digest in some trouble, killed up to ``most`` times at random moments."""
        deaths = random_deaths(chance, most, self.outcome.suspensions, self._duration)
        await self.digest(chance.choice(TROUBLES), *deaths)

    async def digest(self, trouble: dict[str, Any], *workers: Worker) -> int | None:
        """Ask for a digest, let these workers try, then others until it has ended; then count.

        Returns how the first worker ended.
        """
        mine = self._mine
        self.mattermost.state.behaviour = Behaviour(**trouble)
        directive, _ = await mine.run_now(self._installation.id)
        first: int | None = None
        for round_ in range(_MOST_ROUNDS):
            await mine.hours_pass()
            kind: Worker = workers[round_] if round_ < len(workers) else {}
            begun = time.monotonic()
            ended, suspensions = await asyncio.to_thread(self._forks.work, mine.tenant, kind)
            first = ended if first is None else first
            if ended == 0 and suspensions and not kind:
                self._duration = time.monotonic() - begun
            if was_killed(ended):
                self.outcome.kills += 1
            elif ended != 0:
                self.outcome.differences.append(f"{self.mode}: a worker ended with {ended}")
            self.outcome.suspensions = max(self.outcome.suspensions, suspensions)
            message = await self._message(directive.id)
            if round_ + 1 >= len(workers) and await self._has_ended(directive.id, message):
                break
            if self.mode != "webhook" and message and message.state in ("unknown", "posted"):
                await patience_passes(mine)
        self.outcome.digests += 1
        await self._count(trouble, directive.id)
        return first

    async def _has_ended(self, directive_id: UUID, message: OutboundMessage | None) -> bool:
        ended = (await self._mine.directive(directive_id)).state in _ENDED
        if self.mode == "webhook" or message is None:
            return ended
        return ended and message.state == "posted" and message.remote_id is not None

    async def _message(self, directive_id: UUID) -> OutboundMessage | None:
        async with self._mine.database.tenant(self._mine.tenant.schema) as session:
            found: OutboundMessage | None = await session.scalar(
                select(OutboundMessage).where(OutboundMessage.directive_id == directive_id)
            )
        return found

    async def _count(self, trouble: dict[str, Any], directive_id: UUID) -> None:
        if trouble.get("late_save_seconds"):
            # What is still on its way is saved by then.
            await asyncio.sleep(WORLD_SECONDS)
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
        self._posted += len(posts)
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
        elif self.mode == "bot" and len(posts[0].file_ids) != trouble.get("may_upload", True):
            differences.append(f"{about}: {len(posts[0].file_ids)} pictures")

    def compare(self) -> None:
        """The channel holds the posts that were counted and no other, as an independent client sees it."""
        if (seen := self._seen_by_others()) != self._posted:
            told = f"{self.mode}: an independent client sees {seen} posts, not {self._posted}"
            self.outcome.differences.append(told)

    def _seen_by_others(self) -> int:
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
    lanes: int = 1,
    seed: int = 0,
    progress: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> dict[str, Outcome]:
    """Kill at every ``every``-th suspension, then at random until ``kills`` in all; by mode.

    ``lanes`` digests of each mode are on their way at once.
    """
    outcomes = {mode: Outcome() for mode in MODES}
    with contextlib.ExitStack() as stack:
        settings, server = stack.enter_context(running_platform())
        settings = settings.model_copy(
            update={"manual_runs_per_hour": 1_000_000, "absence_seconds": PATIENCE_SECONDS}
        )

        making = asyncio.Lock()

        def done() -> None:
            progress([*outcomes.values()])

        async def one(number: int, lane: int, mode: str) -> None:
            forks = Forks(settings, server.owner_url)
            stack.callback(forks.close)
            mattermost = stack.enter_context(running_mattermost())
            test = Kills(mode, outcomes[mode], forks, mattermost)
            async with making:
                tenant = await create_tenant(settings, slug=f"kills-{mode}-{lane}", name=mode)
            await test.set_up(database, settings, tenant)
            await test.every_suspension(1 + lane * every, lanes * every, done)
            chance = random.Random(seed + number)
            while test.outcome.kills < kills / len(MODES):
                await test.random_kills(chance, 3)
                done()
            await asyncio.to_thread(test.compare)

        async with Database.application(settings) as database:
            places = [(lane, mode) for lane in range(lanes) for mode in MODES]
            await asyncio.gather(
                *(one(number, lane, mode) for number, (lane, mode) in enumerate(places))
            )
    return outcomes


def main() -> None:
    """Read the arguments, run, print what was found."""
    killing.main("tests.chaos.posting_kills", __doc__, run)


if __name__ == "__main__":
    main()
