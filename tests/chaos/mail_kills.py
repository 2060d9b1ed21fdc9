"""``python -m tests.chaos.mail_kills``: kill workers while they mail digests, then count letters.

First a worker is killed at every suspension of the sending protocol, by Gmail and by a mail server
alone, then workers are killed at random, several times for one digest, while Gmail loses requests
and answers, fails, limits or refuses, and the mail server hangs up. At the end no digest came
as two letters; by Gmail, with a mail server beside it, each came as exactly one; by a mail server alone
at most one, and a digest whose end is not certain is ``unknown``. Exit code 1 and the first differences
otherwise.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from fleetprompt.db.engine import Database
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.outbound.transports.smtp.letter import TOKEN_HEADER
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.chaos import killing
from tests.chaos.ground import platform as running_platform
from tests.chaos.killing import (
    PATIENCE_SECONDS,
    Forks,
    KillCount,
    Worker,
    patience_passes,
    random_deaths,
    was_killed,
)
from tests.doubles.gmail import Fault, Gmail, api_error, running_gmail, token_error
from tests.doubles.smtp import MailServer, running_smtp
from tests.packages.email_installed import Mailing

WAYS = ("gmail", "smtp")
_MOST_ROUNDS = 60
_ENDED = ("succeeded", "failed", "unknown", "cancelled")


@dataclass(frozen=True)
class Trouble:
    """What the other sides do to one digest: Gmail's next calls, and where the mail server hangs up."""

    name: str
    gmail: tuple[tuple[str, Fault], ...] = ()
    smtp: str = ""


_TROUBLES = {
    "gmail": (
        Trouble("none"),
        Trouble("request lost", (("send", Fault(lose="before")),)),
        Trouble("answer lost", (("send", Fault(lose="after")),)),
        Trouble("draft's answer lost", (("create", Fault(lose="after")),)),
        Trouble("unseen", (("send", Fault(lose="after")), ("look", Fault(lose="before")))),
        Trouble("failing", (("send", Fault(api_error(500, "backendError"))),)),
        Trouble("limited", (("send", Fault(api_error(429, "rateLimitExceeded"))),)),
        Trouble("refused", (("send", Fault(api_error(403, "domainPolicy"), forever=True)),)),
        Trouble("no token", (("token", Fault(token_error(401, "unauthorized"), forever=True)),)),
    ),
    "smtp": (
        Trouble("none"),
        Trouble("refuses to begin", smtp="MAIL"),
        Trouble("request lost", smtp="DATA before"),
        Trouble("answer lost", smtp="DATA after"),
    ),
}


@dataclass
class Outcome(KillCount):
    """What was done by one way and what was found; ``suspensions`` are of the longest protocol."""

    digests: int = 0
    suspensions: int = 0
    by_gmail: int = 0
    by_smtp: int = 0
    unknown: int = 0


class Kills:
    """Kills by one way, with a tenant and stand-ins of their own; others of the way go on beside them.

    ``outcome`` is the way's.
    """

    def __init__(
        self, way: str, outcome: Outcome, forks: Forks, gmail: Gmail, smtp: MailServer
    ) -> None:
        self.way, self._forks, self._gmail, self._smtp = way, forks, gmail, smtp
        self.outcome = outcome
        # Seconds that the quickest worker took which sent a digest undisturbed.
        self._duration = 60.0

    async def set_up(self, database: Database, settings: Settings, tenant: Tenant) -> None:
        """Connect, and send a digest that nobody disturbs."""
        told = settings.model_copy(
            update={
                "gmail_url": self._gmail.url,
                "google_token_url": f"{self._gmail.url}/token",
            }
        )
        self._mine = Mailing(database, told, tenant)
        self._gmail.users.add(await self._mine.person("ada", "owner"))
        gmail = self._gmail if self.way == "gmail" else None
        self._installation = await self._mine.installed(gmail, self._smtp)
        await self.digest(Trouble("none"))

    async def every_suspension(self, first: int, every: int, done: Callable[[], None]) -> None:
        """Kill at the ``first`` suspension, and at each ``every``-th after it, one digest for each."""
        at = first
        while was_killed(await self.digest(Trouble("none"), {"kill_at": at})):
            at += every
            done()

    async def random_kills(self, chance: random.Random, most: int) -> None:
        """One digest in some trouble, killed up to ``most`` times: at suspensions, or by the clock."""
        deaths = random_deaths(chance, most, self.outcome.suspensions, self._duration)
        await self.digest(chance.choice(_TROUBLES[self.way]), *deaths)

    async def digest(self, trouble: Trouble, *workers: Worker) -> int | None:
        """Ask for a digest, let these workers try, then others until it has ended; then count.

        Returns how the first worker ended.
        """
        mine = self._mine
        self._gmail.faults = dict(trouble.gmail)
        self._smtp.drop = trouble.smtp
        directive, execution = await mine.run_now(self._installation.id)
        first: int | None = None
        for round_ in range(_MOST_ROUNDS):
            await mine.hours_pass()
            kind: Worker = workers[round_] if round_ < len(workers) else {}
            begun = time.monotonic()
            ended, suspensions = await asyncio.to_thread(self._forks.work, mine.tenant, kind)
            if ended == 0 and suspensions and not kind:
                self._duration = min(self._duration, time.monotonic() - begun)
            first = ended if first is None else first
            if was_killed(ended):
                self.outcome.kills += 1
            elif ended != 0:
                self.outcome.differences.append(f"{self.way}: a worker ended with {ended}")
            self.outcome.suspensions = max(self.outcome.suspensions, suspensions)
            if round_ > len(workers):
                # The mail server is well again: what was certainly not taken gets through.
                self._smtp.drop = ""
            message = await self._message(directive.id)
            if round_ + 1 >= len(workers) and await self._has_ended(directive.id, message):
                break
            if message is not None and message.state == "unknown":
                await patience_passes(mine)
        self._gmail.faults, self._smtp.drop = {}, ""
        self.outcome.digests += 1
        await self._count(f"{self.way}, {trouble.name}, {directive.id}", directive.id, execution.id)
        return first

    async def _has_ended(self, directive_id: UUID, message: OutboundMessage | None) -> bool:
        if (await self._mine.directive(directive_id)).state not in _ENDED:
            return False
        # A draft would tell, so the platform goes on looking.
        looked_for = message is not None and message.state == "unknown" and message.remote_place
        return not looked_for

    async def _message(self, directive_id: UUID) -> OutboundMessage | None:
        async with self._mine.database.tenant(self._mine.tenant.schema) as session:
            found: OutboundMessage | None = await session.scalar(
                select(OutboundMessage).where(OutboundMessage.directive_id == directive_id)
            )
        return found

    async def _count(self, about: str, directive_id: UUID, execution_id: UUID) -> None:
        token, outcome = execution_id.hex, self.outcome
        by_gmail = sum(one[TOKEN_HEADER] == token for _, one in self._gmail.sent)
        by_smtp = sum(one.message[TOKEN_HEADER] == token for one in self._smtp.mails)
        outcome.by_gmail += by_gmail
        outcome.by_smtp += by_smtp
        letters = by_gmail + by_smtp
        message = await self._message(directive_id)
        state = message.state if message else "missing"
        if letters > 1:
            outcome.differences.append(f"{about}: {by_gmail} by Gmail and {by_smtp} by SMTP")
        if state == "posted" and letters != 1:
            outcome.differences.append(f"{about}: posted, says the ledger, with {letters} letters")
        if state == "unknown":
            outcome.unknown += 1
            if (await self._mine.directive(directive_id)).state != "unknown":
                outcome.differences.append(f"{about}: unknown, and not shown as such")
        elif state != "posted":
            ended = await self._mine.directive(directive_id)
            outcome.differences.append(f"{about}: {state}, {ended.state}: {ended.error_message}")
        # A mail server that took over after Gmail's refusal may leave a doubt; Gmail itself never.
        if state == "unknown" and self.way == "gmail" and by_gmail:
            outcome.differences.append(f"{about}: unknown, and Gmail sent it")


async def run(
    kills: int,
    *,
    every: int = 1,
    lanes: int = 1,
    seed: int = 0,
    progress: Callable[[list[Outcome]], None] = lambda outcomes: None,
) -> dict[str, Outcome]:
    """Kill at every ``every``-th suspension, then at random until ``kills`` in all; by way.

    ``lanes`` digests by each way are on their way at once.
    """
    outcomes = {way: Outcome() for way in WAYS}
    with contextlib.ExitStack() as stack:
        settings, server = stack.enter_context(running_platform())
        settings = settings.model_copy(
            update={"manual_runs_per_hour": 1_000_000, "absence_seconds": PATIENCE_SECONDS}
        )

        making = asyncio.Lock()

        def done() -> None:
            progress([*outcomes.values()])

        async def one(number: int, lane: int, way: str) -> None:
            gmail = stack.enter_context(running_gmail())
            smtp = stack.enter_context(running_smtp())
            forks = Forks(
                settings,
                server.owner_url,
                FLEETPROMPT_GMAIL_URL=gmail.url,
                FLEETPROMPT_GOOGLE_TOKEN_URL=f"{gmail.url}/token",
            )
            stack.callback(forks.close)
            test = Kills(way, outcomes[way], forks, gmail, smtp)
            async with making:
                tenant = await create_tenant(settings, slug=f"mails-{way}-{lane}", name=way)
            await test.set_up(database, settings, tenant)
            await test.every_suspension(1 + lane * every, lanes * every, done)
            chance = random.Random(seed + number)
            while test.outcome.kills < kills / len(WAYS):
                await test.random_kills(chance, 3)
                done()

        async with Database.application(settings) as database:
            places = [(lane, way) for lane in range(lanes) for way in WAYS]
            await asyncio.gather(
                *(one(number, lane, way) for number, (lane, way) in enumerate(places))
            )
    return outcomes


def main() -> None:
    """Read the arguments, run, print what was found."""
    killing.main("tests.chaos.mail_kills", __doc__, run)


if __name__ == "__main__":
    main()
