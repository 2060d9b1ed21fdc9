"""Killed at any await of the sending, the e-mail digest is mailed at most once, and the ledger says so."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.outbound import doubt, ledger
from fleetprompt.outbound.transports.gmail import way as gmail_way
from fleetprompt.outbound.transports.gmail.account import GmailAccount
from fleetprompt.outbound.transports.gmail.drafts import Mailbox
from fleetprompt.outbound.transports.gmail.way import MailWay
from fleetprompt.packages.digest import run as digest_run
from fleetprompt.packages.email_daily_digest.record import Sending
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.doubles.gmail import Fault, Gmail, running_gmail
from tests.doubles.smtp import MailServer, running_smtp
from tests.packages.email_installed import Mailing


@pytest.fixture
def gmail() -> Iterator[Gmail]:
    with running_gmail() as running:
        yield running


@pytest.fixture
def smtp() -> Iterator[MailServer]:
    with running_smtp() as running:
        yield running


@pytest.fixture
def mailing(database: Database, settings: Settings, tenant: Tenant, gmail: Gmail) -> Mailing:
    told = settings.model_copy(
        update={
            "gmail_url": gmail.url,
            "google_token_url": f"{gmail.url}/token",
            "absence_seconds": 0.001,
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
    "note": (digest_run, "keep_also"),
    "take": (doubt, "take"),
    "look": (Mailbox, "look"),
    "absence": (doubt, "note_absence"),
    "free": (doubt, "free_to_send"),
    "rewrite": (Mailbox, "rewrite"),
    "withdraw": (Mailbox, "withdraw"),
}


async def die_at(mailing: Mailing, monkeypatch: pytest.MonkeyPatch, name: str, when: str) -> bool:
    """Work until the marked await, die before or after it; whether it was come to."""
    owner, attribute = POINTS[name]
    original = getattr(owner, attribute)

    async def dies(*args: Any, **named: Any) -> Any:
        if when == "after":
            await original(*args, **named)
        raise Crash

    died = False
    with monkeypatch.context() as patch:
        patch.setattr(owner, attribute, dies)
        try:
            await mailing.work()
        except Crash:
            died = True
    await mailing.hours_pass()
    return died


async def come_to_rest(mailing: Mailing) -> None:
    for _ in range(6):
        await mailing.work()
        await mailing.hours_pass()


FIRST_ATTEMPT = ("collect", "claim", "audience", "token", "create", "sending", "send", "record")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", [*FIRST_ATTEMPT, "told", "read", "note"])
async def test_dying_at_any_await_gmail_sends_exactly_one(
    mailing: Mailing,
    gmail: Gmail,
    smtp: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    when: str,
) -> None:
    """Traps 18, 19 and 37: the draft tells what became of it, whoever died."""
    gmail.users.add(await mailing.person("ada", "owner"))
    installation = await mailing.installed(gmail, smtp)
    await mailing.run_now(installation.id)
    assert await die_at(mailing, monkeypatch, name, when)
    await come_to_rest(mailing)
    assert (len(gmail.sent), len(smtp.mails), gmail.drafts) == (1, 0, {})
    (entry,) = await mailing.ledger()
    assert entry.state == "posted"
    assert entry.remote_id
    assert len(await mailing.signals("email.message.posted")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", ["take", "look", "absence", "free", "rewrite", "token"])
@pytest.mark.parametrize("lost", ["before", "after"])
async def test_dying_while_a_doubt_is_settled_gmail_sends_exactly_one(
    mailing: Mailing,
    gmail: Gmail,
    smtp: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    when: str,
    lost: str,
) -> None:
    """Traps 7 and 36 for mail: the request or its answer was lost, then the one who looks dies too."""
    gmail.users.add(await mailing.person("ada", "owner"))
    installation = await mailing.installed(gmail, smtp)
    gmail.faults["send"] = Fault(lose=lost)
    await mailing.run_now(installation.id)
    for _ in range(3):
        if await die_at(mailing, monkeypatch, name, when):
            break
    await come_to_rest(mailing)
    assert (len(gmail.sent), len(smtp.mails), gmail.drafts) == (1, 0, {})
    (entry,) = await mailing.ledger()
    assert entry.state == "posted"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "name", ["collect", "claim", "audience", "sending", "submit", "record", "told", "note"]
)
async def test_dying_at_any_await_a_mail_server_gets_at_most_one(
    mailing: Mailing, smtp: MailServer, monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    await mailing.person("ada", "owner")
    installation = await mailing.installed(smtp=smtp)
    await mailing.run_now(installation.id)
    assert await die_at(mailing, monkeypatch, name, when)
    await come_to_rest(mailing)
    (entry,) = await mailing.ledger()
    in_doubt = name in ("submit", "record", "told")
    if in_doubt:
        assert (entry.state, entry.error_kind) == ("unknown", "unknown")
        assert len(smtp.mails) == (0 if (name, when) == ("submit", "before") else 1)
    else:
        assert (entry.state, len(smtp.mails)) == ("posted", 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_dying_again_and_again_where_chance_has_it(
    mailing: Mailing,
    gmail: Gmail,
    smtp: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    """The same at random points, several times over, with Gmail losing answers on the way."""
    chance = random.Random(seed)
    gmail.users.add(await mailing.person("ada", "owner"))
    installation = await mailing.installed(gmail, smtp)
    await mailing.run_now(installation.id)
    for _ in range(5):
        if chance.random() < 0.5:
            lost = chance.choice(["before", "after"])
            gmail.faults[chance.choice(["token", "create", "send", "look", "rewrite"])] = Fault(
                lose=lost
            )
        await die_at(
            mailing, monkeypatch, chance.choice(list(POINTS)), chance.choice(["before", "after"])
        )
    gmail.faults.clear()
    await come_to_rest(mailing)
    (entry,) = await mailing.ledger()
    total = len(gmail.sent) + len(smtp.mails)
    assert total <= 1
    if entry.state == "posted":
        assert total == 1
    else:
        assert entry.state == "unknown"
        assert entry.remote_place is None, "a draft would have told"
