"""An escalation that failed or may not have arrived is settled by a person, in the inbox and over HTTP."""

from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import at_console, hidden_field, person
from tests.api.console.test_inbox import INBOX
from tests.api.support import Keys, calling, problem_id
from tests.doubles.mattermost import RunningMattermost
from tests.doubles.smtp import MailServer, running_smtp
from tests.packages.chat_installed import TEAM, Chat
from tests.webchat.visiting import Visitor

API = "/api/v1/webchat/conversations"


@pytest.fixture
def chat(database: Database, settings: Settings, tenant: Tenant) -> Chat:
    """The platform as one tenant uses it."""
    return Chat(database, settings, tenant)


async def escalation_of(chat: Chat, visitor: Visitor) -> str:
    """The id of the conversation's one escalation."""
    async with chat.database.tenant(chat.tenant.schema) as session:
        query = "SELECT id FROM directives WHERE type LIKE 'webchat.escalate%' AND correlation_id = :story"
        found = await session.scalars(text(query), {"story": f"webchat:{visitor.conversation}"})
        return str(found.one())


async def test_a_post_that_may_not_have_arrived_is_posted_again_by_a_persons_word_and_only_once(
    app: FastAPI, keys: Keys, chat: Chat, mattermost: RunningMattermost, tenant: Tenant
) -> None:
    await chat.installed(mattermost)
    behaviour = mattermost.state.behaviour
    behaviour.fault, behaviour.fault_requests = "drop_before_save", 1
    visitor = await chat.visitor(await chat.site())
    await visitor.say("hello")
    await chat.work()
    assert [one.state for one in await chat.ledger()] == ["unknown"]
    address = f"{INBOX}/{visitor.conversation}"
    resolve = f"{address}/escalations/{await escalation_of(chat, visitor)}/resolve"
    vera = await person(keys, tenant, "vera", "viewer")
    async with at_console(app, keys, tenant, vera) as client:
        assert "Settle …" not in (await client.get(address)).text
        form = {"action": "post_again", "key": str(uuid4())}
        assert (await client.post(resolve, data=form)).status_code == 403
    async with at_console(app, keys, tenant, await person(keys, tenant, "max", "member")) as client:
        page = (await client.get(address)).text
        assert "Settle …" in page
        assert "it may then be there twice" in page
        form = {"action": "post_again", "key": hidden_field(page, "key")}
        for _ in range(2):
            assert (await client.post(resolve, data=form)).status_code == 303
        await chat.work()
        page = (await client.get(address)).text
        assert "Settle …" not in page
        assert "posted again" in page
        again = await client.post(resolve, data={**form, "key": str(uuid4())})
        assert again.status_code == 409
        assert "The escalation is posted" in again.text
        assert (await client.post(resolve, data={**form, "action": "forget"})).status_code == 400
        other = resolve.replace(resolve.split("/")[-2], str(uuid4()))
        assert (await client.post(other, data=form)).status_code == 404
    assert len(mattermost.posts) == 1
    assert len(await chat.told("webchat.escalation.notified")) == 1
    assert await chat.counted("webchat.escalation_resolve") == 1


async def test_a_mail_in_doubt_is_given_up_or_sent_again_as_the_same_mail(
    app: FastAPI, keys: Keys, chat: Chat, smtp: MailServer, tenant: Tenant
) -> None:
    await chat.installed(smtp=smtp)
    site = await chat.site()
    smtp.drop = "DATA after"
    visitors = [await chat.visitor(site) for _ in range(2)]
    for visitor in visitors:
        await visitor.say("hello")
    await chat.work()
    smtp.drop = ""
    given_up, sent_again = visitors
    async with calling(app, await keys.user(tenant, role="member")) as team:

        async def resolve(visitor: Visitor, action: str, key: str) -> tuple[int, str]:
            escalation = await escalation_of(chat, visitor)
            url = f"{API}/{visitor.conversation}/escalations/{escalation}/resolve"
            headers = {"Idempotency-Key": key}
            answer = await team.post(url, json={"action": action}, headers=headers)
            if answer.status_code == 409:
                return 409, problem_id(answer, 409)
            return answer.status_code, answer.json()["directive_id"]

        # A mail server cannot be asked.
        assert await resolve(given_up, "look", "1") == (409, "conflict")
        status, first = await resolve(given_up, "give_up", "2")
        assert (status, first) == await resolve(given_up, "give_up", "2")
        assert (await resolve(sent_again, "post_again", "3"))[0] == 202
        await chat.work()
        # Repeated under its key it is the same request, whatever has become of the escalation.
        assert await resolve(given_up, "give_up", "2") == (202, first)
        assert await resolve(sent_again, "give_up", "4") == (409, "conflict")
    assert (await chat.directive(UUID(first))).state == "succeeded"
    (told,) = await chat.told("webchat.escalation.given_up")
    assert told["conversation_id"] == str(given_up.conversation)
    assert told["by"].partition(":")[0] in ("user", "key")
    (notified,) = await chat.told("webchat.escalation.notified")
    assert notified["conversation_id"] == str(sent_again.conversation)
    # The mails of one escalation have one Message-ID, so that a mailbox can tell.
    assert len(smtp.mails) == 3
    names = {str(mail.message["Message-ID"]) for mail in smtp.mails}
    assert len(names) == 2
    ledger = {one.resolution: one.state for one in await chat.ledger()}
    assert ledger == {"given_up": "unknown", "posted_again": "posted"}


async def test_what_certainly_failed_is_sent_again_after_its_connection_was_mended_but_never_once_erased(
    app: FastAPI, keys: Keys, chat: Chat, tenant: Tenant
) -> None:
    """Trap 56: nothing of somebody who was forgotten is sent."""
    installation = await chat.installed(email_to=[TEAM], email_every_conversation=True)
    site = await chat.site()
    kept, forgotten = [await chat.visitor(site) for _ in range(2)]
    for visitor in (kept, forgotten):
        await visitor.say("hello")
    await chat.work()  # no mail server is connected
    (first, second) = await chat.told("webchat.escalation.failed")
    assert first["state"] == second["state"] == "failed"
    async with at_console(app, keys, tenant, await person(keys, tenant, "max", "member")) as client:
        address = f"{INBOX}/{kept.conversation}"
        page = (await client.get(address)).text
        assert "Try again …" in page
        assert "Give up" not in page
        with running_smtp() as smtp:
            await chat.connect_kind(installation.id, "smtp", f"smtp://127.0.0.1:{smtp.port}")
            form = {"action": "post_again", "key": hidden_field(page, "key")}
            resolve = f"{address}/escalations/{await escalation_of(chat, kept)}/resolve"
            assert (await client.post(resolve, data=form)).status_code == 303
            await forgotten.ask_to_be_forgotten()
            other = f"{INBOX}/{forgotten.conversation}"
            resolve = f"{other}/escalations/{await escalation_of(chat, forgotten)}/resolve"
            assert (await client.post(resolve, data=form)).status_code == 409
            await chat.work()
            assert len(smtp.mails) == 1
    (notified,) = await chat.told("webchat.escalation.notified")
    assert notified["conversation_id"] == str(kept.conversation)
