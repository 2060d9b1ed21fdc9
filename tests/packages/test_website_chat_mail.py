"""Conversations mailed to the team: once by a mail server, and once by a connector."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from fleetprompt.connectors.models import Connector
from fleetprompt.db.engine import Database
from fleetprompt.directives.models import Directive
from fleetprompt.ids import new_id
from fleetprompt.outbound import ledger
from fleetprompt.outbound.ledger import Intent
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.escalation import ESCALATE_TO_EMAIL
from tests.doubles.smtp import MailServer
from tests.packages.chat_installed import TEAM, Chat


@pytest.fixture
def chat(database: Database, settings: Settings, tenant: Tenant) -> Chat:
    """The platform as one tenant uses it."""
    return Chat(database, settings, tenant)


async def settled(chat: Chat) -> None:
    for _ in range(3):
        await chat.work()
        await chat.hours_pass()


async def test_a_first_message_is_mailed_once_as_text_that_nothing_breaks_out_of(
    chat: Chat, smtp: MailServer
) -> None:
    """Trap 45, towards the team's mailbox."""
    await chat.installed(smtp=smtp, email_sender="robot@team.example")
    site = await chat.site(name="Shop\nBcc: evil@x.example")
    visitor = await chat.visitor(site, name="<b>Eve</b>")
    await visitor.say("first\r\nBcc: x@y.example\n<script>alert(1)</script>")
    await visitor.say("second")
    await settled(chat)
    (mail,) = smtp.mails
    assert (mail.sender, mail.recipients) == ("robot@team.example", [TEAM])
    assert mail.message["Bcc"] is None
    assert mail.message["Subject"] == "Website chat: Shop Bcc: evil@x.example"
    plain, html = (mail.message.get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None
    assert html is not None
    link = f"{chat.settings.api_url}/support/webchat/conversations/{visitor.conversation}"
    assert link in plain.get_content()
    assert "> Bcc: x@y.example" in plain.get_content()
    assert "second" not in plain.get_content()
    assert "<script" not in html.get_content()
    assert "<b>" not in html.get_content()
    (notified,) = await chat.told("webchat.escalation.notified")
    assert (notified["to"], notified["destination"]) == ("email", TEAM)
    (entry,) = await chat.ledger()
    key = f"webchat_email_escalation:{chat.tenant.slug}:{visitor.conversation}:{TEAM}"
    assert (entry.dedupe_key, entry.state) == (key, "posted")


async def test_a_mail_that_may_have_gone_is_not_sent_again_and_is_told_of(
    chat: Chat, smtp: MailServer
) -> None:
    await chat.installed(smtp=smtp)
    smtp.drop = "DATA after"
    visitor = await chat.visitor(await chat.site())
    await visitor.say("hello")
    await settled(chat)
    smtp.drop = ""
    await settled(chat)
    assert len(smtp.mails) == 1
    (failed,) = await chat.told("webchat.escalation.failed")
    assert (failed["to"], failed["state"]) == ("email", "unknown")
    assert not await chat.told("webchat.escalation.notified")


async def test_a_mail_that_was_certainly_not_taken_is_tried_again(
    chat: Chat, smtp: MailServer
) -> None:
    await chat.installed(smtp=smtp)
    smtp.refusals["RCPT"] = "451 later"
    visitor = await chat.visitor(await chat.site())
    await visitor.say("hello")
    await chat.work()
    await chat.hours_pass()
    assert smtp.mails == []
    smtp.refusals.clear()
    await settled(chat)
    assert len(smtp.mails) == 1
    assert len(await chat.told("webchat.escalation.notified")) == 1
    assert not await chat.told("webchat.escalation.failed")


async def test_who_is_forgotten_before_the_mail_leaves_is_not_in_it(
    chat: Chat, smtp: MailServer
) -> None:
    """Trap 56."""
    await chat.installed(smtp=smtp)
    visitor = await chat.visitor(await chat.site())
    await visitor.say("hello")
    await visitor.ask_to_be_forgotten()
    await settled(chat)
    assert smtp.mails == []


@pytest.mark.parametrize("outcome", ["sent", "failed"])
async def test_by_a_connector_one_mail_is_asked_for_and_its_word_ends_the_escalation(
    chat: Chat, outcome: str
) -> None:
    connector = await _connector(chat)
    await chat.installed(
        email_to=[TEAM],
        email_every_conversation=True,
        email_via="connector",
        connector_id=str(connector),
    )
    visitor = await chat.visitor(await chat.site())
    await visitor.say("hello")
    await settled(chat)
    async with chat.database.tenant(chat.tenant.schema) as session:
        (mail,) = await session.scalars(select(Directive).where(Directive.type == "email.send"))
    # What leaves by the customer's own account waits for people, as every mail by a connector does.
    assert (mail.state, mail.target) == ("awaiting_approval", str(connector))
    assert mail.params["to"] == [TEAM]
    assert "hello" in mail.params["text_body"]
    assert not await chat.told("webchat.escalation.notified")
    story = f"webchat:{visitor.conversation}"
    for subject in (str(mail.id), str(uuid4()), "x"):
        await chat.emit(
            f"email.outbound.{outcome}",
            "edge:proton_mail",
            subject_type="directive",
            subject_id=subject,
            correlation_id=story,
        )
    await chat.emit(f"email.outbound.{outcome}", "edge:proton_mail", correlation_id="mail:7")
    found = await chat.replay(f"email.outbound.{outcome}")
    assert (found.signals_read, found.requested, found.refused) == (4, 2, 0)
    word = {"sent": "notified", "failed": "failed"}[outcome]
    (told,) = await chat.told(f"webchat.escalation.{word}")
    assert told["directive_id"] == str(await _escalation(chat))
    await chat.replay(f"email.outbound.{outcome}")
    assert len(await chat.told(f"webchat.escalation.{word}")) == 1


async def test_a_mail_that_may_have_gone_one_way_never_goes_the_other(
    chat: Chat, smtp: MailServer
) -> None:
    """Whoever changes the way in between: the worker died while the mail server was spoken to."""
    installation = await chat.installed(smtp=smtp)
    visitor = await chat.visitor(await chat.site())
    await visitor.say("hello")
    async with chat.database.tenant(chat.tenant.schema) as session:
        key = f"webchat_email_escalation:{chat.tenant.slug}:{visitor.conversation}:{TEAM}"
        claimed = await ledger.plan_and_claim(session, Intent(key, "email", TEAM, "0" * 64))
        assert claimed.lease is not None
        await ledger.begin_sending(session, claimed.lease)
    connector = await _connector(chat)
    await chat.configure(
        installation.id, email_to=[TEAM], email_via="connector", connector_id=str(connector)
    )
    await chat.hours_pass()
    await settled(chat)
    assert await chat.counted("email.send") == 0
    assert smtp.mails == []
    (failed,) = await chat.told("webchat.escalation.failed")
    assert failed["state"] == "unknown"


async def test_a_connector_that_was_revoked_fails_the_escalation(chat: Chat) -> None:
    connector = await _connector(chat, state="revoked")
    await chat.installed(
        email_to=[TEAM],
        email_every_conversation=True,
        email_via="connector",
        connector_id=str(connector),
    )
    await (await chat.visitor(await chat.site())).say("hello")
    await settled(chat)
    (failed,) = await chat.told("webchat.escalation.failed")
    assert failed["error_kind"] == "validation"
    assert await chat.counted("email.send") == 0


async def _connector(chat: Chat, state: str = "connected") -> UUID:
    made = new_id()
    async with chat.database.tenant(chat.tenant.schema) as session:
        session.add(
            Connector(
                id=made,
                package="proton_mail_edge_connector",
                label="Office",
                state="connected",
                created_by="user:ada",
            )
        )
        await session.flush()
        if state == "revoked":
            revoked = text("UPDATE connectors SET state = 'revoked', revoked_at = now()")
            await session.execute(revoked)
    return made


async def _escalation(chat: Chat) -> UUID:
    async with chat.database.tenant(chat.tenant.schema) as session:
        query = select(Directive.id).where(Directive.type == ESCALATE_TO_EMAIL)
        return (await session.scalars(query)).one()
