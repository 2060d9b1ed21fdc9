"""Killed at any await of the sending, the e-mail digest is mailed at most once, and the ledger says so."""

import random
from dataclasses import dataclass
from typing import Any

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.executions.models import Execution
from fleetprompt.outbound import doubt, ledger
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.outbound.transports.gmail import way as gmail_way
from fleetprompt.outbound.transports.gmail.account import GmailAccount
from fleetprompt.outbound.transports.gmail.drafts import Mailbox
from fleetprompt.outbound.transports.gmail.way import MailWay
from fleetprompt.outbound.transports.smtp.letter import TOKEN_HEADER
from fleetprompt.packages.digest import run as digest_run
from fleetprompt.packages.email_daily_digest import run as email_run
from fleetprompt.packages.email_daily_digest.record import Sending
from fleetprompt.packages.models import Installation
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.doubles.gmail import Fault, Gmail
from tests.doubles.smtp import MailServer
from tests.packages.email_installed import Mailing


@pytest.fixture
def mailing(database: Database, settings: Settings, tenant: Tenant, gmail: Gmail) -> Mailing:
    told = settings.model_copy(
        update={
            "gmail_url": gmail.url,
            "google_token_url": f"{gmail.url}/token",
            "absence_seconds": 0.001,
            "manual_runs_per_hour": 1000,
        }
    )
    return Mailing(database, told, tenant)


class Crash(BaseException):
    """Stands for SIGKILL: nothing in the process may catch it."""


# Every await of the protocol: the ledger's transactions and the requests to the other side.
POINTS: dict[str, tuple[Any, str]] = {
    "collect": (digest_run, "collect"),
    "claim": (ledger, "plan_and_claim"),
    "audience": (MailWay, "_audience"),
    "token": (GmailAccount, "token"),
    "create": (Mailbox, "create"),
    "sending": (ledger, "begin_sending"),
    "send": (Mailbox, "send"),
    "submit": (gmail_way, "submit"),
    "record": (ledger, "settle"),
    "told": (Sending, "posted"),
    "read": (doubt, "read"),
    "end": (email_run, "send_digest"),
    "take": (doubt, "take"),
    "look": (Mailbox, "look"),
    "absence": (doubt, "note_absence"),
    "free": (doubt, "free_to_send"),
    "rewrite": (Mailbox, "rewrite"),
    "withdraw": (Mailbox, "withdraw"),
}


@dataclass
class Deaths:
    """One installation whose digests are asked for by hand, each under workers that die."""

    mailing: Mailing
    gmail: Gmail
    smtp: MailServer
    monkeypatch: pytest.MonkeyPatch
    installation: Installation

    async def asked(self) -> Execution:
        _, execution = await self.mailing.run_now(self.installation.id)
        return execution

    async def die_at(self, name: str, when: str) -> bool:
        """Work until the marked await, die before or after it; whether it was come to."""
        owner, attribute = POINTS[name]
        original = getattr(owner, attribute)

        async def dies(*args: Any, **named: Any) -> Any:
            if when == "after":
                await original(*args, **named)
            raise Crash

        died = False
        with self.monkeypatch.context() as patch:
            patch.setattr(owner, attribute, dies)
            try:
                await self.mailing.work()
            except Crash:
                died = True
        await self.mailing.hours_pass()
        return died

    async def at_rest(self, execution: Execution) -> tuple[OutboundMessage, int, int]:
        """Its entry in the ledger once nothing is left to do, and its letters by Gmail and by SMTP."""
        for _ in range(8):
            if not await self.mailing.work():
                break
            await self.mailing.hours_pass()
        (entry,) = [one for one in await self.mailing.ledger() if one.execution_id == execution.id]
        token = execution.id.hex
        by_gmail = sum(message[TOKEN_HEADER] == token for _, message in self.gmail.sent)
        by_smtp = sum(one.message[TOKEN_HEADER] == token for one in self.smtp.mails)
        return entry, by_gmail, by_smtp


@pytest.fixture
async def deaths(
    mailing: Mailing, gmail: Gmail, smtp: MailServer, monkeypatch: pytest.MonkeyPatch
) -> Deaths:
    """With Gmail and a mail server connected."""
    gmail.users.add(await mailing.person("ada", "owner"))
    installation = await mailing.installed(gmail, smtp)
    return Deaths(mailing, gmail, smtp, monkeypatch, installation)


WHENS = ("before", "after")
BY_GMAIL = (
    *("collect", "claim", "audience", "token", "create", "sending", "send", "record", "told"),
    "end",
)


async def test_dying_at_any_await_gmail_sends_exactly_one(deaths: Deaths) -> None:
    """Traps 18, 19 and 37: the draft tells what became of it, whoever died."""
    for name in BY_GMAIL:
        for when in WHENS:
            execution = await deaths.asked()
            assert await deaths.die_at(name, when), (name, when)
            entry, by_gmail, by_smtp = await deaths.at_rest(execution)
            assert (by_gmail, by_smtp, deaths.gmail.drafts) == (1, 0, {}), (name, when)
            assert entry.state == "posted", (name, when)
            assert entry.remote_id
    told = await deaths.mailing.signals("email.message.posted")
    assert len(told) == len(BY_GMAIL) * len(WHENS)


@pytest.mark.slow
async def test_dying_while_a_doubt_is_settled_gmail_sends_exactly_one(deaths: Deaths) -> None:
    """Traps 7 and 36 for mail: the request or its answer was lost, then the one who looks dies too."""
    for name in ("take", "look", "absence", "free", "rewrite", "token"):
        for when in WHENS:
            for lost in WHENS:
                deaths.gmail.faults["send"] = Fault(lose=lost)
                execution = await deaths.asked()
                for _ in range(3):
                    if await deaths.die_at(name, when):
                        break
                entry, by_gmail, by_smtp = await deaths.at_rest(execution)
                found = (entry.state, by_gmail, by_smtp, deaths.gmail.drafts)
                assert found == ("posted", 1, 0, {}), (name, when, lost)


async def test_dying_at_any_await_a_mail_server_gets_at_most_one(
    mailing: Mailing, gmail: Gmail, smtp: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traps 6, 18 and 19 for mail."""
    await mailing.person("ada", "owner")
    installation = await mailing.installed(smtp=smtp)
    deaths = Deaths(mailing, gmail, smtp, monkeypatch, installation)
    for name in ("collect", "claim", "audience", "sending", "submit", "record", "told", "end"):
        for when in WHENS:
            execution = await deaths.asked()
            assert await deaths.die_at(name, when), (name, when)
            entry, _, by_smtp = await deaths.at_rest(execution)
            if name in ("submit", "record", "told"):
                assert (entry.state, entry.error_kind) == ("unknown", "unknown"), (name, when)
                assert by_smtp == (0 if (name, when) == ("submit", "before") else 1)
            else:
                assert (entry.state, by_smtp) == ("posted", 1), (name, when)


@pytest.mark.slow
async def test_dying_again_and_again_where_chance_has_it(deaths: Deaths) -> None:
    """The same at random points, several times over, with Gmail losing answers on the way."""
    for seed in range(6):
        chance = random.Random(seed)
        execution = await deaths.asked()
        for _ in range(5):
            if chance.random() < 0.5:
                lost = chance.choice(WHENS)
                operation = chance.choice(["token", "create", "send", "look", "rewrite"])
                deaths.gmail.faults[operation] = Fault(lose=lost)
            await deaths.die_at(chance.choice(list(POINTS)), chance.choice(WHENS))
        deaths.gmail.faults.clear()
        entry, by_gmail, by_smtp = await deaths.at_rest(execution)
        assert by_gmail + by_smtp <= 1, seed
        if entry.state == "posted":
            assert by_gmail + by_smtp == 1, seed
        else:
            assert entry.state == "unknown", seed
            assert entry.remote_place is None, "a draft would have told"
