"""Reading: filters, pages, and forward without losing what commits late (T9)."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.db.urls import application_url
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.signals.read import (
    Filter,
    Position,
    end_position,
    get_signal,
    list_signals,
    position_of,
    read_forward,
)
from fleetprompt.signals.wakeups import Listener, Notifier
from fleetprompt.tenants.service import Tenant

INSERT = (
    "INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, metadata)"
    " VALUES (%s, %s, 'test', %s, %s, %s, %s::jsonb)"
)


async def enter(
    settings: Settings, tenant: Tenant
) -> "psycopg.AsyncConnection[tuple[object, ...]]":
    connection = await psycopg.AsyncConnection.connect(application_url(settings))
    await connection.execute(
        "SELECT set_config('role', %s, true), set_config('search_path', %s, true)",
        (tenant.schema, quote_identifier(tenant.schema)),
    )
    return connection


async def add(
    settings: Settings,
    tenant: Tenant,
    type_: str,
    *,
    at: str = "2026-01-06T09:00:00Z",
    subject: tuple[str, str] | tuple[None, None] = (None, None),
    correlation: str | None = None,
) -> UUID:
    connection = await enter(settings, tenant)
    made = new_id()
    metadata = "{}" if correlation is None else f'{{"correlation_id": "{correlation}"}}'
    await connection.execute(INSERT, (made, type_, at, *subject, metadata))
    await connection.commit()
    await connection.close()
    return made


async def test_filters_and_pages(settings: Settings, tenant: Tenant, database: Database) -> None:
    made = [
        await add(settings, tenant, "email.inbound.received", correlation="c"),
        await add(settings, tenant, "email.outbound.sent", subject=("email", "7")),
        await add(settings, tenant, "emails.other", at="2026-02-01T00:00:00Z"),
        await add(settings, tenant, "webchat.message.received", correlation="c"),
    ]

    async def found(filter_: Filter) -> list[UUID]:
        async with database.tenant(tenant.schema) as session:
            return [s.id for s in await list_signals(session, filter_)]

    assert await found(Filter()) == made[::-1]
    assert await found(Filter(type="email.*")) == [made[1], made[0]]
    assert await found(Filter(type="emails.other")) == [made[2]]
    assert await found(Filter(correlation_id="c")) == [made[3], made[0]]
    assert await found(Filter(subject_type="email", subject_id="7")) == [made[1]]
    assert await found(Filter(occurred_from=datetime(2026, 2, 1, tzinfo=UTC))) == [made[2]]
    assert made[2] not in await found(Filter(occurred_before=datetime(2026, 2, 1, tzinfo=UTC)))

    pages: list[UUID] = []
    before = None
    while True:
        async with database.tenant(tenant.schema) as session:
            page = await list_signals(session, Filter(), before=before, limit=3)
        if not page:
            break
        pages += [s.id for s in page]
        before = page[-1].id
    assert pages == made[::-1]


async def test_another_tenants_signal_is_not_found(
    settings: Settings, new_tenant: Callable[[], Awaitable[Tenant]], database: Database
) -> None:
    first, second = await new_tenant(), await new_tenant()
    made = await add(settings, first, "a.b")
    async with database.tenant(first.schema) as session:
        assert (await get_signal(session, made)).id == made
    with pytest.raises(NotFoundError):
        async with database.tenant(second.schema) as session:
            await get_signal(session, made)


async def test_t9_a_transaction_that_commits_late_is_not_passed_over(
    settings: Settings, tenant: Tenant, database: Database
) -> None:
    async def forward(after: Position) -> tuple[list[UUID], Position]:
        async with database.tenant(tenant.schema) as session:
            found = await read_forward(session, after)
        return [s.id for s in found], (position_of(found[-1]) if found else after)

    early = await enter(settings, tenant)
    early_id = new_id()
    await early.execute(INSERT, (early_id, "early.one", "2026-01-06T09:00:00Z", None, None, "{}"))
    late_id = await add(settings, tenant, "late.one")

    seen, position = await forward(Position())
    # The committed one has a higher transaction id than the open one: reading stops before it.
    assert seen == []
    await early.commit()
    await early.close()
    seen, position = await forward(position)
    assert seen == [early_id, late_id]
    assert await forward(position) == ([], position)


async def test_the_end_position_yields_only_what_comes_later(
    settings: Settings, tenant: Tenant, database: Database
) -> None:
    await add(settings, tenant, "a.before")
    async with database.tenant(tenant.schema) as session:
        position = await end_position(session)
    later = await add(settings, tenant, "a.later")
    async with database.tenant(tenant.schema) as session:
        assert [s.id for s in await read_forward(session, position)] == [later]


def test_positions_are_text_and_back() -> None:
    position = Position(42, new_id())
    assert Position.parse(str(position)) == position
    for wrong in ("", "1", "1-2", "-1-" + "0" * 32, "x-" + "0" * 32, f"{2**63}-" + "0" * 32):
        with pytest.raises(InvalidError):
            Position.parse(wrong)


async def test_one_notice_wakes_the_tenants_it_names(settings: Settings) -> None:
    listener, notifier = Listener(application_url(settings)), Notifier(application_url(settings))
    listener.start()
    notifier.start()
    async with asyncio.timeout(10):
        while not listener.healthy:
            await asyncio.sleep(0.01)
    waiting = asyncio.create_task(listener.wait("org_a", 30))
    other = asyncio.create_task(listener.wait("org_b", 30))
    await asyncio.sleep(0)
    notifier.tell({"org_a"})
    async with asyncio.timeout(5):
        await waiting
    assert not other.done()
    other.cancel()
    await listener.close()
    await notifier.close()


async def test_t11_a_killed_listener_comes_back(settings: Settings, owner: Database) -> None:
    listener = Listener(application_url(settings))
    listener.start()

    async def until(healthy: bool) -> None:
        while listener.healthy is not healthy:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(20):
        await until(True)
        async with owner.platform() as session:
            await session.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'"
                )
            )
        await until(False)
        await until(True)
    await listener.close()


@pytest.mark.parametrize("payload", ["", "no json", "5", "null", "[[]]", '[{"a": 1}]', '{"a": 1}'])
async def test_a_notice_that_is_not_ours_does_not_end_the_listener(
    settings: Settings, owner: Database, payload: str
) -> None:
    """Every login of the database may send a notice on any channel."""
    listener = Listener(application_url(settings))
    listener.start()
    try:
        async with asyncio.timeout(10):
            while not listener.healthy:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(listener.wait("org_a", 30))
            async with owner.platform() as session:
                for each in (payload, '["org_a"]'):
                    await session.execute(
                        text("SELECT pg_notify('fleetprompt_signals', :each)"), {"each": each}
                    )
            await waiting
    finally:
        await listener.close()
