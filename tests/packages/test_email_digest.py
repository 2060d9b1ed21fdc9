"""The e-mail digest from its slot to the admins' mailboxes: who, what, once."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import InvalidError, RateLimitedError
from fleetprompt.packages.email_daily_digest.audience import active_admins, refuse_strangers
from fleetprompt.packages.email_daily_digest.requests import request_test
from fleetprompt.packages.runs import admit_test
from fleetprompt.packages.scheduling import request_slots
from fleetprompt.schedules import slots as schedule_slots
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.doubles.gmail import CANARY, Fault, Gmail, api_error, token_error
from tests.doubles.smtp import MailServer
from tests.packages.email_installed import Mailing
from tests.packages.installed import ADMIN


@pytest.fixture
def mailing(database: Database, settings: Settings, tenant: Tenant, gmail: Gmail) -> Mailing:
    """The platform as one tenant uses it, with Google where the stand-in is."""
    told = settings.model_copy(
        update={"gmail_url": gmail.url, "google_token_url": f"{gmail.url}/token"}
    )
    return Mailing(database, told, tenant)


async def settled(mailing: Mailing, rounds: int = 4) -> None:
    for _ in range(rounds):
        await mailing.work()
        await mailing.hours_pass()


async def test_a_slot_s_digest_is_mailed_once_to_the_active_admins(
    mailing: Mailing, gmail: Gmail
) -> None:
    ada, ben = await mailing.person("ada", "owner"), await mailing.person("ben")
    await mailing.person("eve", "viewer")
    gmail.users.add(ada)
    await mailing.installed(gmail, timezone="Europe/Berlin")
    for slot in (await mailing.slots())[:3]:
        mailing.now = slot.due_at + timedelta(seconds=30)
        async with mailing.database.platform() as session:
            due = [
                one
                for one in await schedule_slots.due(session, mailing.now)
                if one.tenant_schema == mailing.tenant.schema
            ]
        async with mailing.database.tenant(mailing.tenant.schema) as session:
            await request_slots(session, mailing.tenant, due, mailing.now, mailing.settings)
        await mailing.work(rounds=2)
    assert [slot.state for slot in (await mailing.slots())[:4]] == [*["done"] * 3, "planned"]
    assert len(gmail.sent) == 3
    user, message = gmail.sent[-1]
    assert (user, message["To"]) == (ada, f"{ada}, {ben}")
    assert [part.get_content_type() for part in message.walk()] == [
        *("multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png")
    ]
    entries = await mailing.ledger()
    assert {entry.state for entry in entries} == {"posted"}
    assert {entry.proof for entry in entries} == {"answer"}
    told = await mailing.signals("email.message.posted")
    assert [data["recipients"] for _, data in told] == [2, 2, 2]
    assert len(await mailing.signals("value.digest.posted")) == 3
    assert ada not in str([data for _, data in await mailing.signals("email.")])


async def test_the_sender_is_the_configured_one_else_the_first_active_admin(
    mailing: Mailing, gmail: Gmail
) -> None:
    first = await mailing.person("zoe")
    second = await mailing.person("ada")
    gmail.users |= {first, second}
    installation = await mailing.installed(gmail)
    await mailing.run_now(installation.id)
    await mailing.work()
    await mailing.configure(
        installation.id,
        sender=second,
        empty_window="post",
        gmail_credential_id=installation.config["gmail_credential_id"],
    )
    await mailing.run_now(installation.id)
    await mailing.work()
    assert [(user, str(mail["From"])) for user, mail in gmail.sent] == [
        (first, f"FleetPrompt <{first}>"),
        (second, f"FleetPrompt <{second}>"),
    ]


async def test_whoever_left_before_the_sending_gets_nothing(
    mailing: Mailing, gmail: Gmail, smtp: MailServer
) -> None:
    """Trap 38: asked for, written, refused for a while; then one admin is gone."""
    ada, ben = await mailing.person("ada", "owner"), await mailing.person("ben")
    gmail.users.add(ada)
    installation = await mailing.installed(gmail)
    gmail.faults["create"] = Fault(api_error(429, "rateLimitExceeded"))
    await mailing.run_now(installation.id)
    await mailing.work()
    assert gmail.sent == []
    await mailing.leaves(ben)
    await mailing.hours_pass()
    await mailing.work()
    ((_, message),) = gmail.sent
    assert message["To"] == ada


async def test_only_admins_who_are_active_count(mailing: Mailing) -> None:
    ada = await mailing.person("ada", "owner")
    ben = await mailing.person("ben")
    for role in ("viewer", "member"):
        await mailing.person(role, role)
    assert await active_admins(mailing.database, mailing.tenant) == [ada, ben]
    async with mailing.database.platform() as session:
        await session.execute(
            text(
                "UPDATE fleetprompt.members SET active = false WHERE organization_id = :tenant"
                " AND user_id = (SELECT id FROM fleetprompt.users WHERE email = :email)"
            ),
            {"tenant": mailing.tenant.id, "email": ben},
        )
    assert await active_admins(mailing.database, mailing.tenant) == [ada]


@pytest.mark.parametrize(
    ("fault", "transport"),
    [
        ({"token": Fault(token_error(401, "unauthorized_client"), forever=True)}, "smtp"),
        ({"create": Fault(api_error(403, "domainPolicy"), forever=True)}, "smtp"),
        ({"create": Fault(api_error(500, "backendError"), forever=True)}, "smtp"),
        ({"send": Fault(api_error(403, "domainPolicy"), forever=True)}, "smtp"),
        ({"send": Fault(api_error(429, "rateLimitExceeded"))}, "gmail"),
        ({"send": Fault(api_error(500, "backendError"))}, "gmail"),
        ({"send": Fault(lose="before")}, "gmail"),
        ({"send": Fault(lose="after")}, "gmail"),
        ({"send": Fault(lose="after"), "look": Fault(api_error(503, "x"))}, "gmail"),
    ],
    ids=["token", "policy", "500", "refused", "limit", "send-500", "lost", "sent", "sent-unseen"],
)
async def test_whatever_fails_exactly_one_letter_comes(
    mailing: Mailing, gmail: Gmail, smtp: MailServer, fault: dict[str, Fault], transport: str
) -> None:
    """Traps 35, 36 and 37, to the end."""
    gmail.users.add(await mailing.person("ada", "owner"))
    installation = await mailing.installed(gmail, smtp)
    mailing.settings = mailing.settings.model_copy(update={"absence_seconds": 0.001})
    gmail.faults = dict(fault)
    directive, execution = await mailing.run_now(installation.id)
    await settled(mailing, 6)
    counts = {"gmail": len(gmail.sent), "smtp": len(smtp.mails)}
    assert counts == {"gmail": 0, "smtp": 0} | {transport: 1}
    (entry,) = await mailing.ledger()
    assert entry.state == "posted"
    assert (await mailing.directive(directive.id)).state == "succeeded"
    kept = (await mailing.execution(execution.id)).result
    assert kept is not None
    assert (kept["ledger_state"], kept["transport"]) == ("posted", transport)


@pytest.mark.parametrize(
    ("drop", "state", "mails"), [("DATA before", "unknown", 0), ("DATA after", "unknown", 1)]
)
async def test_a_mail_server_s_lost_answer_stays_unknown_until_a_person_decides(
    mailing: Mailing, smtp: MailServer, drop: str, state: str, mails: int
) -> None:
    await mailing.person("ada", "owner")
    installation = await mailing.installed(smtp=smtp)
    smtp.drop = drop
    directive, _ = await mailing.run_now(installation.id)
    await settled(mailing)
    smtp.drop = ""
    await settled(mailing)
    assert len(smtp.mails) == mails
    (entry,) = await mailing.ledger()
    assert (entry.state, entry.error_kind) == (state, "network")
    assert (await mailing.directive(directive.id)).state == "unknown"
    ((_, told),) = await mailing.signals("email.message.failed")
    assert (told["outcome"], told["error_kind"]) == ("unknown", "network")


async def test_failures_are_told_by_class_and_never_echoed(
    mailing: Mailing, gmail: Gmail, owner: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    gmail.users.add(await mailing.person("ada", "owner"))
    installation = await mailing.installed(gmail)
    for operation, answer in (
        ("token", token_error(401, "unauthorized_client")),
        ("create", api_error(400, "invalidArgument")),
        ("send", api_error(403, "domainPolicy")),
    ):
        gmail.faults[operation] = Fault(answer)
        directive, _ = await mailing.run_now(installation.id)
        await mailing.work()
        ended = await mailing.directive(directive.id)
        assert ended.state == "failed"
        assert CANARY not in str(ended.error_message)
    assert CANARY not in caplog.text
    async with owner.platform() as session:
        for table in ("signals", "outbound_messages", "executions", "execution_logs", "directives"):
            hits = await session.scalar(
                text(
                    f"SELECT count(*) FROM {mailing.tenant.schema}.{table} t"
                    " WHERE t::text LIKE :canary OR t::text LIKE '%PRIVATE KEY%'"
                ),
                {"canary": f"%{CANARY}%"},
            )
            assert hits == 0, table
    assert gmail.sent == []


async def test_tests_go_to_named_admins_alone_and_three_an_hour(
    mailing: Mailing, gmail: Gmail
) -> None:
    ada, ben = await mailing.person("ada", "owner"), await mailing.person("ben")
    gmail.users.add(ada)
    installation = await mailing.installed(gmail)
    for _ in range(3):
        async with mailing.database.tenant(mailing.tenant.schema) as session:
            found, _ = await admit_test(session, installation.id, ADMIN, mailing.settings)
            await request_test(session, mailing.tenant, found, ADMIN, [ben.upper()])
    async with mailing.database.tenant(mailing.tenant.schema) as session:
        with pytest.raises(RateLimitedError):
            await admit_test(session, installation.id, ADMIN, mailing.settings)
    await mailing.work()
    assert [message["To"] for _, message in gmail.sent] == [ben] * 3


@pytest.mark.parametrize(
    "stranger",
    [
        "x@evil.example",
        "ada@{slug}.example.evil.test",
        "ada@evil{slug}.example",
        "ada+x@{slug}.example",
    ],
)
async def test_a_test_to_a_stranger_is_refused(mailing: Mailing, stranger: str) -> None:
    """messaging.md T24: external, look-alike, plus tag."""
    ada = await mailing.person("ada", "owner")
    with pytest.raises(InvalidError) as caught:
        to = [ada, stranger.format(slug=mailing.tenant.slug)]
        await refuse_strangers(mailing.database, mailing.tenant, to)
    assert [error["pointer"] for error in caught.value.errors] == ["/to/1"]


async def test_a_test_to_somebody_who_is_no_admin_any_more_is_not_sent(
    mailing: Mailing, gmail: Gmail
) -> None:
    ada, ben = await mailing.person("ada", "owner"), await mailing.person("ben")
    gmail.users.add(ada)
    installation = await mailing.installed(gmail)
    async with mailing.database.tenant(mailing.tenant.schema) as session:
        directive, _ = await request_test(session, mailing.tenant, installation, ADMIN, [ben])
    await mailing.leaves(ben)
    await mailing.work()
    assert (await mailing.directive(directive.id)).state == "failed"
    assert gmail.sent == []
