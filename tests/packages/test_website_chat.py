"""The chat as a package: its settings, its test, its end, and replays that ask for nothing twice."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.errors import ConflictError, InvalidError
from fleetprompt.packages import runs, service
from fleetprompt.packages.registry import get, handlers_of, validate_config
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat import escalation
from fleetprompt.webchat.inbox import get_conversation
from fleetprompt.webchat.tenant_settings import ChatSettings
from tests.doubles.mattermost import RunningMattermost
from tests.doubles.smtp import MailServer
from tests.packages.chat_installed import SLUG, TEAM, Chat
from tests.packages.installed import ADMIN
from tests.webchat.visiting import look_up

MEMBER = Actor("user:ben", "member")


@pytest.fixture
def chat(database: Database, settings: Settings, tenant: Tenant) -> Chat:
    """The platform as one tenant uses it."""
    return Chat(database, settings, tenant)


def test_the_manifest_names_every_option_that_the_chat_reads_and_every_signal_that_it_answers() -> (
    None
):
    manifest = get(SLUG)
    assert set(manifest.config["properties"]) == set(ChatSettings().as_json())
    found = validate_config(manifest, {})
    assert found.as_json() == ChatSettings().as_json()
    assert ChatSettings.of_json(found.as_json()) == ChatSettings()
    module = handlers_of(SLUG)
    assert module is not None
    assert set(module.signal_handlers) == set(manifest.consumes)


@pytest.mark.parametrize(
    ("config", "pointer"),
    [
        ({"mode": "intercom"}, "/config/mode"),
        ({"notify_channel": "Town Square"}, "/config/notify_channel"),
        ({"email_to": ["nobody"]}, "/config/email_to"),
        ({"email_to": ["a@b.example\r\nBcc: c@d.example"]}, "/config/email_to"),
        ({"email_every_conversation": True}, "/config/email_to"),
        ({"email_to": [TEAM], "email_via": "connector"}, "/config/connector_id"),
        ({"captcha": "hcaptcha"}, "/config/captcha_site_key"),
        ({"captcha_site_key": '"><script>'}, "/config/captcha_site_key"),
        ({"charla_script_url": "http://charla.example/w.js"}, "/config/charla_script_url"),
        ({"charla_script_url": "javascript:alert(1)"}, "/config/charla_script_url"),
        ({"charla_script_url": 'https://a.example/"><script>'}, "/config/charla_script_url"),
        ({"charla_script_url": "https://u:p@a.example/w.js"}, "/config/charla_script_url"),
        ({"charla_object": "a.b"}, "/config/charla_object"),
        ({"signals_hold": "some"}, "/config/signals_hold"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_place(
    config: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        validate_config(get(SLUG), config)
    assert pointer in [one["pointer"] for one in refused.value.errors]


async def test_trap_49_a_replay_of_every_message_escalates_and_tells_nothing_twice(
    chat: Chat, mattermost: RunningMattermost, smtp: MailServer
) -> None:
    """The handlers are asked and name the same keys; what lacks its directive is held by the ledger."""
    await chat.installed(mattermost, smtp)
    site = await chat.site()
    for _ in range(3):
        visitor = await chat.visitor(site)
        for number in range(2):
            await visitor.say(f"message {number}")
    await chat.work()
    kinds = (escalation.ESCALATE_TO_MATTERMOST, escalation.ESCALATE_TO_EMAIL)

    async def effects() -> list[int]:
        told = [len(await chat.told(f"webchat.escalation.{w}")) for w in ("created", "notified")]
        asked = [await chat.counted(kind) for kind in kinds]
        return [len(mattermost.posts), len(smtp.mails), *told, *asked]

    before = await effects()
    assert before == [3, 3, 6, 6, 3, 3]
    again = await chat.replay("webchat.message.received")
    assert (again.signals_read, again.duplicates, again.requested) == (6, 6, 0)
    assert await effects() == before
    # Even where the directives are gone, what went out does not go out again.
    async with chat.database.tenant(chat.tenant.schema) as session:
        await session.execute(text("DELETE FROM directives WHERE type LIKE 'webchat.escalate%'"))
    again = await chat.replay("webchat.message.received")
    assert again.requested == 6
    assert [len(mattermost.posts), len(smtp.mails)] == [3, 3]
    assert len(await chat.told("webchat.escalation.notified")) == 6


async def test_a_signal_that_somebody_made_up_asks_for_nothing_else(chat: Chat) -> None:
    await chat.installed()
    visitor = await chat.visitor(await chat.site())
    own = {"conversation_id": str(visitor.conversation)}
    escalations: list[Any] = [
        {"type": "package.uninstall", "key": "webchat_x", "params": own},
        {"type": escalation.ESCALATE_TO_EMAIL, "key": "dir:other", "params": own},
        {"type": escalation.ESCALATE_TO_EMAIL, "key": "webchat_1", "params": {}},
        {"type": escalation.ESCALATE_TO_EMAIL, "key": 7, "params": own},
        *("text", None, 3),
    ]
    for named in (escalations, "text", {"a": 1}, 7):
        data = {"conversation_id": str(visitor.conversation), "escalations": named}
        await chat.emit("webchat.message.received", "somebody", data=data)
    found = await chat.replay("webchat.message.received")
    assert (found.signals_read, found.requested, found.refused) == (4, 0, 0)
    assert found.handlers_failed == 0


async def test_switching_the_package_off_refuses_every_key_until_it_is_on_again(chat: Chat) -> None:
    installation = await chat.installed()
    site = await chat.site()
    assert site.active
    for action, active in ((service.disable, False), (service.enable, True)):
        async with chat.database.tenant(chat.tenant.schema) as session:
            await action(session, chat.tenant, installation.id, ADMIN)
        await chat.work()
        assert (await look_up(chat.database, chat.settings, site.key)).active is active


async def test_uninstalling_switches_every_site_off_and_keeps_what_was_said(chat: Chat) -> None:
    installation = await chat.installed()
    sites = [await chat.site(name=name) for name in ("Shop", "Blog")]
    visitor = await chat.visitor(sites[0])
    await visitor.say("hello")
    async with chat.database.tenant(chat.tenant.schema) as session:
        await service.uninstall(session, chat.tenant, installation.id, ADMIN)
    await chat.work()
    for site in sites:
        assert not (await look_up(chat.database, chat.settings, site.key)).active
    told = await chat.told("webchat.site.disabled")
    assert {one["site_id"] for one in told} == {str(site.id) for site in sites}
    async with chat.database.tenant(chat.tenant.schema) as session:
        assert (await get_conversation(session, visitor.conversation)).last_seq == 1


@pytest.mark.parametrize(
    ("held", "words", "contact"),
    [("all", True, True), ("words", True, False), ("nothing", False, False)],
)
async def test_a_tenant_says_what_of_a_visitor_leaves_the_conversation(
    chat: Chat,
    mattermost: RunningMattermost,
    smtp: MailServer,
    held: str,
    words: bool,
    contact: bool,
) -> None:
    await chat.installed(mattermost, smtp, signals_hold=held, notices_hold=held)
    visitor = await chat.visitor(await chat.site(), name="Zebulon", email="zeb@example.org")
    await visitor.say("My zeppelin is late")
    await chat.work()
    signals = str(await chat.signals("webchat."))
    (post,), (mail,) = mattermost.posts, smtp.mails
    letter = mail.message.get_body(("plain",))
    assert letter is not None
    for told in (signals, post.message, letter.get_content()):
        assert ("zeppelin" in told) is words
        assert ("Zebulon" in told) is contact
    assert "/support/webchat/conversations/" in post.message
    assert ("zeb@" in signals) is contact


async def test_each_sites_own_choices_go_before_the_tenants(
    chat: Chat, mattermost: RunningMattermost
) -> None:
    installation = await chat.installed(mattermost, notify_channel="fleet-reports")
    chosen = installation.config["notify_installation_id"]
    notify = {"installation_id": chosen, "channel": "town-square"}
    own = await chat.site(notify=notify, content_in_signals=False)
    for site in (own, await chat.site()):
        await (await chat.visitor(site)).say("private words")
    await chat.work()
    told = await chat.told("webchat.escalation.notified")
    assert {one["destination"].partition("#")[2] for one in told} == {
        "town-square",
        "fleet-reports",
    }
    assert sorted("private words" in post.message for post in mattermost.posts) == [False, True]


async def test_the_test_looks_at_every_site_and_posts_a_line_in_each_place(
    chat: Chat, mattermost: RunningMattermost
) -> None:
    installation = await chat.installed(mattermost)
    chosen = installation.config["notify_installation_id"]
    good = await chat.site()
    for channel in ("town-square", "town-square", None):
        await chat.site(notify={"installation_id": chosen, "channel": channel})
    closed = await chat.site(origins=())
    vendor = await chat.site(mode="charla_embed")
    async with chat.database.tenant(chat.tenant.schema) as session:
        directive, _ = await runs.post_test(
            session, chat.tenant, installation.id, ADMIN, chat.settings
        )
    await chat.work()
    await chat.hours_pass()
    assert (await chat.directive(directive.id)).state == "succeeded"
    assert len(mattermost.posts) == 2
    assert all("This is a test" in post.message for post in mattermost.posts)
    assert len({post.channel_id for post in mattermost.posts}) == 2
    (told,) = await chat.told("webchat.test.completed")
    assert told["posted"] is True
    found = {one["site_id"]: one["problem"] for one in told["sites"]}
    assert found[str(good.id)] is None
    assert "every page is refused" in found[str(closed.id)]
    assert "Charla's script" in found[str(vendor.id)]
    async with chat.database.tenant(chat.tenant.schema) as session:
        with pytest.raises(ConflictError, match="nothing to run"):
            await runs.run_now(
                session, chat.tenant, installation.id, ADMIN, chat.settings, chat.clock()
            )


async def test_nobody_has_a_conversation_mailed_where_no_administrator_said(
    chat: Chat, smtp: MailServer
) -> None:
    visitor = await chat.visitor(await chat.site())

    async def ask(address: str | None) -> None:
        async with chat.database.tenant(chat.tenant.schema) as session:
            conversation = await get_conversation(session, visitor.conversation)
            await escalation.escalate_by_email(
                session, chat.tenant, conversation, address=address, actor=MEMBER
            )

    with pytest.raises(ConflictError, match="No address"):
        await ask(None)
    await chat.installed(smtp=smtp, email_every_conversation=False)
    with pytest.raises(InvalidError) as refused:
        await ask("somebody@elsewhere.example")
    assert refused.value.errors[0]["pointer"] == "/email"
    await ask(TEAM.upper())
    # Asked for past that door, it is judged again.
    async with chat.database.tenant(chat.tenant.schema) as session:
        conversation = await get_conversation(session, visitor.conversation)
        wanted = escalation.to_email(chat.tenant, visitor.conversation, f"{uuid4()}@x.example")
        directive, _ = await escalation.ask(session, chat.tenant, conversation, wanted, MEMBER)
    await chat.work()
    assert (await chat.directive(directive.id)).state == "failed"
    assert [mail.recipients for mail in smtp.mails] == [[TEAM]]
