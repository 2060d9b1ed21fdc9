"""Forgetting: by a visitor's request in everything that we keep, and by age."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.service import request_directive
from fleetprompt.ids import new_id
from fleetprompt.retention.pace import Pace
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.retention import prune
from fleetprompt.webchat.telling import correlation_of
from tests.webchat.visiting import Visitor, look_up, new_site

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
AT_ONCE = Pace(rows=100, rest=0)


@pytest.fixture
async def arrive(database: Database, settings: Settings, tenant: Tenant) -> Any:
    """Makes visitors of a site with settings."""

    async def make(**values: Any) -> Visitor:
        key = await new_site(database, settings, tenant, **values)
        return Visitor(database, await look_up(database, settings, key))

    return make


async def everything(database: Database, tenant: Tenant) -> str:
    """All that the tenant's tables hold, in text."""
    async with database.tenant(tenant.schema) as session:
        tables = await session.scalars(
            text(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
            )
        )
        rows = [
            str(row)
            for table in tables.all()
            for row in await session.scalars(text(f"SELECT t::text FROM {table} t"))
        ]
    return "\n".join(rows)


async def test_trap_56_nothing_of_a_forgotten_visitor_is_in_any_table(
    database: Database, tenant: Tenant, arrive: Any
) -> None:
    """Not in replies, approvals, mails that wait, nor in a hash of name and address."""
    visitor = await (await arrive()).begin(name="Zebulon", email="zeb@example.org")
    await visitor.say("My zeppelin is late")
    story = correlation_of(visitor.conversation)
    of = {"conversation_id": str(visitor.conversation)}
    mail = {"to": ["chat@team.example"], "subject": "Chat", "text_body": "My zeppelin is late"}
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO approval_policies (directive_type, required, roles, approvals,"
                " proposer_may_approve, expires_after_seconds, changed_by)"
                " VALUES ('webchat.reply_send', true, '{owner}', 1, true, 3600, 'user:ada')"
            )
        )
        asked = [
            await request_directive(
                session,
                tenant,
                kind,
                params,
                idempotency_key=kind,
                actor=PLATFORM,
                correlation_id=story,
                target=target,
            )
            for kind, params, target in (
                ("webchat.reply_send", {**of, "text": "Dear Zebulon", "author": "Anna"}, None),
                ("email.send", mail, str(new_id())),
            )
        ]
    assert [directive.state for directive, _ in asked] == ["awaiting_approval"] * 2
    found = await everything(database, tenant)
    for word in ("Zebulon", "zeb@example.org", "zeppelin", "zebra"):
        assert word in found
    contact = [line for line in found.splitlines() if "webchat.contact.captured" in line]
    await visitor.ask_to_be_forgotten()
    found = await everything(database, tenant)
    for word in ("Zebulon", "zeb@", "zeppelin", "zebra"):
        assert word not in found, [line for line in found.splitlines() if word in line]
    assert contact
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(text("SELECT state FROM directives WHERE type = 'email.send'"))
        # What no connector has fetched is not mailed any more.
        assert [row.state for row in rows] == ["cancelled"]
        waiting = await session.scalar(
            text(
                "SELECT count(*) FROM approvals WHERE directive_type = 'email.send' AND state = 'waiting'"
            )
        )
    assert waiting == 0
    assert "webchat.conversation.erased" in found


async def test_by_age_the_sites_own_term_goes_before_the_tenants(
    database: Database, tenant: Tenant, arrive: Any
) -> None:
    async def old(days: float, **values: Any) -> Visitor:
        visitor: Visitor = await arrive(**values)
        visitor.clock = lambda: NOW - timedelta(days=days)
        await visitor.begin()
        await visitor.say("words")
        return visitor

    kept = [await old(29), await old(300, retention_days=365)]
    gone = [await old(32), await old(3, retention_days=1)]
    await gone[0].end()
    first_kept = date(2026, 5, 16)  # 30 days
    assert await prune(database, tenant, first_kept, NOW, AT_ONCE) == 2
    assert await prune(database, tenant, first_kept, NOW, AT_ONCE) == 0
    async with database.tenant(tenant.schema) as session:
        asked = text("SELECT data->>'by' FROM signals WHERE type = 'webchat.conversation.erased'")
        assert list(await session.scalars(asked)) == ["platform"] * 2
        rows = await session.execute(text("SELECT id, status FROM website_chat_conversations"))
        states = {row.id: row.status for row in rows}
        words = await session.scalar(
            text("SELECT count(*) FROM website_chat_messages WHERE content IS NOT NULL")
        )
    assert {states[visitor.conversation] for visitor in gone} == {"erased"}
    assert {states[visitor.conversation] for visitor in kept} == {"open"}
    assert words == 2


async def test_where_nobody_named_a_term_conversations_stay_and_what_is_useless_goes(
    database: Database, tenant: Tenant, arrive: Any
) -> None:
    visitor: Visitor = await arrive()
    visitor.clock = lambda: NOW - timedelta(days=3000)
    await visitor.begin()
    await visitor.say("words")
    other: Visitor = await arrive()
    await other.begin()
    await other.ask_to_be_forgotten()
    late = system_clock() + timedelta(days=91)
    assert await prune(database, tenant, None, late, AT_ONCE) == 0
    async with database.tenant(tenant.schema) as session:
        for table in ("website_chat_limits", "website_chat_salts", "website_chat_erasures"):
            assert await session.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table
        secrets = await session.scalar(text("SELECT count(*) FROM website_chat_site_secrets"))
    assert secrets == 6
