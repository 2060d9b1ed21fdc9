"""What goes wrong while signals are written must not end the writing, nor fail what was stored."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.db.roles import drop_tenant_schema
from fleetprompt.db.urls import application_url
from fleetprompt.errors import DatabaseUnavailableError, FleetPromptError, InvalidError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Accepted, Producer, read_one
from fleetprompt.signals.flush import Flusher
from fleetprompt.signals.handlers import DirectiveRequest, Handlers, SignalView
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.tenants.service import Tenant

TYPE = "order.placed"


def one(**changes: Any) -> list[Accepted]:
    body = {
        "type": TYPE,
        "source": "shop",
        "occurred_at": "2026-01-06T09:00:00Z",
        **changes,
    }
    return [read_one(json.dumps(body).encode(), Producer())]


async def submit(writer: SignalWriter, schema: str, items: list[Accepted]) -> str:
    """The status of the one item, or the id of the problem; never longer than five seconds."""
    try:
        return (await asyncio.wait_for(writer.submit(schema, items), 5))[0].status
    except FleetPromptError as error:
        return error.id


async def count(database: Database, tenant: Tenant) -> int:
    async with database.tenant(tenant.schema) as session:
        return int(await session.scalar(text("SELECT count(*) FROM signals")) or 0)


async def install(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO installations (id, package, version, state, config_checksum)"
                " VALUES (:id, 'faulty', '1', 'connected', '')"
            ),
            {"id": new_id()},
        )


def _returns_nothing(_: SignalView) -> Any:
    return None


def _params_are_no_json(_: SignalView) -> list[DirectiveRequest]:
    return [DirectiveRequest("faulty.act", {"value": object()}, "faulty:1")]


def _key_is_too_long(_: SignalView) -> list[DirectiveRequest]:
    return [DirectiveRequest("faulty.act", {}, "k" * 513)]


def _text_has_nul(signal: SignalView) -> list[DirectiveRequest]:
    return [DirectiveRequest("faulty.act", {"text": "\x00"}, f"faulty:{signal.id}")]


@pytest.mark.parametrize(
    "handler", [_returns_nothing, _params_are_no_json, _key_is_too_long, _text_has_nul]
)
async def test_what_a_faulty_handler_asks_for_loses_no_signal(
    settings: Settings, tenant: Tenant, database: Database, handler: Any
) -> None:
    await install(database, tenant)
    writer = SignalWriter(
        application_url(settings), settings, Handlers.of([("faulty", {TYPE: handler})])
    )
    await writer.start()
    try:
        answers = [await submit(writer, tenant.schema, one()) for _ in range(5)]
    finally:
        await writer.close()
    assert answers == ["created"] * 5
    assert await count(database, tenant) == 5


async def test_an_error_that_nobody_foresaw_ends_no_writer(
    settings: Settings, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Flusher._commit
    failures = [
        RuntimeError("unforeseen"),
        psycopg.errors.FeatureNotSupported("cached plan must not change result type"),
    ] * 4

    async def fail_first(self: Flusher, connection: Any, taken: Any) -> Any:
        if failures:
            raise failures.pop()
        return await commit(self, connection, taken)

    monkeypatch.setattr(Flusher, "_commit", fail_first)
    writer = SignalWriter(application_url(settings), settings)
    await writer.start()
    try:
        answers = [await submit(writer, tenant.schema, one()) for _ in range(9)]
    finally:
        await writer.close()
    assert answers == ["database-unavailable"] * 8 + ["created"]


async def test_a_comparison_that_fails_neither_fails_nor_repeats_what_was_stored(
    settings: Settings,
    new_tenant: Callable[[], Awaitable[Tenant]],
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commit came first, so all but the duplicates are answered, whatever becomes of these."""
    first, second = sorted([await new_tenant(), await new_tenant()], key=lambda t: t.schema)
    writer = SignalWriter(
        application_url(settings), settings.model_copy(update={"ingest_writers": 1})
    )
    await writer.start()
    try:
        await writer.submit(first.schema, one(dedupe_key="known"))

        async def refuse(*_: Any) -> Any:
            raise psycopg.errors.InsufficientPrivilege("permission denied")

        with monkeypatch.context() as patched:
            patched.setattr(Flusher, "_compare", refuse)
            answers = await asyncio.gather(
                submit(writer, first.schema, one(dedupe_key="known")),
                submit(writer, second.schema, one()),
            )
        assert list(answers) == ["database-unavailable", "created"]
        assert await submit(writer, first.schema, one(dedupe_key="known")) == "duplicate"
    finally:
        await writer.close()
    assert (await count(database, first), await count(database, second)) == (1, 1)


async def test_signals_of_a_tenant_that_was_just_deleted_are_not_called_invalid(
    settings: Settings, tenant: Tenant, new_tenant: Callable[[], Awaitable[Tenant]], owner: Database
) -> None:
    other = await new_tenant()
    with psycopg.connect(owner.url) as connection:
        drop_tenant_schema(connection, tenant.schema)
    writer = SignalWriter(application_url(settings), settings)
    await writer.start()
    try:
        with pytest.raises(DatabaseUnavailableError):
            await writer.submit(tenant.schema, one())
        assert await submit(writer, other.schema, one()) == "created"
    finally:
        await writer.close()


async def test_a_value_beyond_postgresqls_limits_fails_alone(
    settings: Settings, tenant: Tenant, database: Database
) -> None:
    """An index entry has a limit of its own; its SQLSTATE class 54 is no outage."""
    async with Database.owner(settings) as owner, owner.platform() as session:
        await session.execute(
            text(f"CREATE INDEX too_small ON \"{tenant.schema}\".signals ((data ->> 'long'))")
        )
    writer = SignalWriter(
        application_url(settings), settings.model_copy(update={"ingest_writers": 1})
    )
    await writer.start()
    try:
        long = "".join(str(new_id()) for _ in range(400))
        results = await asyncio.gather(
            submit(writer, tenant.schema, one()),
            submit(writer, tenant.schema, one(data={"long": long})),
            submit(writer, tenant.schema, one()),
        )
    finally:
        await writer.close()
    assert list(results) == ["created", InvalidError.id, "created"]
    assert await count(database, tenant) == 2
