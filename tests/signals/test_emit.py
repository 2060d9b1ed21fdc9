"""The platform's own signals: there if the transaction commits, once for a key, without secrets."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.errors import SecretFoundError
from fleetprompt.settings import Settings
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.signals.envelope import Producer, read_one
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.signals.models import Signal
from fleetprompt.tenants.service import Tenant


async def count(database: Database, tenant: Tenant, table: str = "signals") -> int:
    async with database.tenant(tenant.schema) as session:
        return int((await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def test_a_signal_of_a_transaction_that_rolls_back_never_was(
    database: Database, tenant: Tenant
) -> None:
    """Trap T15: neither the signal nor its key, so that the next try is no duplicate."""
    signal = NewSignal("package.install.completed", dedupe_key="k")
    with pytest.raises(ZeroDivisionError):
        async with database.tenant(tenant.schema) as session:
            await emit(session, signal)
            raise ZeroDivisionError
    assert (await count(database, tenant), await count(database, tenant, "signal_keys")) == (0, 0)
    async with database.tenant(tenant.schema) as session:
        await emit(session, signal)
    assert await count(database, tenant) == 1


async def test_the_same_key_gives_the_first_signals_id(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant.schema) as session:
        first = await emit(session, NewSignal("a.b", data={"n": 1}, dedupe_key="k"))
        again = await emit(session, NewSignal("a.b", data={"n": 2}, dedupe_key="k"))
        other = await emit(session, NewSignal("a.b", dedupe_key="l"))
    assert (first == again, first == other) == (True, False)
    assert await count(database, tenant) == 2


async def test_the_envelope_is_filled_in(database: Database, tenant: Tenant) -> None:
    at = datetime(2026, 3, 8, 12, tzinfo=UTC)
    async with database.tenant(tenant.schema) as session:
        await emit(
            session,
            NewSignal(
                "a.b", {"n": 1}, occurred_at=at, subject_type="installation", subject_id="7",
                correlation_id="c", causation_id="d", metadata={"device_id": "x"},
            ),
        )  # fmt: skip
        row = (await session.execute(text("SELECT * FROM signals"))).one()
    assert (row.source, row.occurred_at, row.subject_id) == ("platform", at, "7")
    assert (row.correlation_id, row.causation_id) == ("c", "d")
    assert row.metadata == {
        "schema_version": 1, "correlation_id": "c", "causation_id": "d", "device_id": "x",
    }  # fmt: skip
    async with database.platform() as session:
        days = await session.scalars(
            text("SELECT day::text FROM fleetprompt.stale_partitions WHERE tenant_schema = :s"),
            {"s": tenant.schema},
        )
        assert list(days) == ["2026-03-08"]


async def test_a_secret_is_refused_by_its_place_and_not_repeated(
    database: Database, tenant: Tenant
) -> None:
    hook = "https://chat.example.org/hooks/canarycanarycanarycanary12"
    async with database.tenant(tenant.schema) as session:
        with pytest.raises(SecretFoundError) as caught:
            await emit(session, NewSignal("a.b", {"list": [{"url": hook}]}))
    assert caught.value.errors[0]["pointer"] == "/data/list/0/url"
    assert "canary" not in repr(caught.value.errors)


async def test_what_json_cannot_hold_is_refused(database: Database, tenant: Tenant) -> None:
    async with database.tenant(tenant.schema) as session:
        with pytest.raises(ValueError, match="JSON"):
            await emit(session, NewSignal("a.b", {"n": float("nan")}))
        with pytest.raises(TypeError):
            await emit(session, NewSignal("a.b", {"n": object()}))


async def test_a_producer_cannot_take_a_key_of_the_platforms_before_it_is_used(
    settings: Settings, database: Database, tenant: Tenant
) -> None:
    """The platform's keys can be foreseen; who sent one first would keep the platform's signal out."""
    body = (
        b'{"type":"order.placed","source":"shop","occurred_at":"2026-01-06T09:00:00Z",'
        b'"dedupe_key":"package.installed:7"}'
    )
    writer = SignalWriter(application_url(settings), settings)
    await writer.start()
    try:
        [forged] = await writer.submit(tenant.schema, [read_one(body, Producer())])
    finally:
        await writer.close()
    async with database.tenant(tenant.schema) as session:
        own = await emit(session, NewSignal("package.installed", dedupe_key="package.installed:7"))
        again = await emit(
            session, NewSignal("package.installed", dedupe_key="package.installed:7")
        )
        assert (await session.get_one(Signal, own)).type == "package.installed"
    assert own == again != forged.id
