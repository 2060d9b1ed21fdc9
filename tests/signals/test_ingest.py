"""Group commit against a real PostgreSQL: nothing lost, nothing twice, one bad row alone."""

import asyncio
import json
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.db.migrate import migrate
from fleetprompt.db.urls import application_url
from fleetprompt.errors import DatabaseUnavailableError, InvalidError, OverloadedError
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Accepted, Producer, Refused, read_many, read_one
from fleetprompt.signals.handlers import DirectiveRequest, Handlers, SignalView
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.tenants.service import Tenant, create_tenant

PRODUCER = Producer()


def envelope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "email.inbound.received",
        "source": "edge:proton_mail",
        "occurred_at": "2026-01-06T09:00:00+01:00",
        "data": {"snippet": "hello"},
        **changes,
    }


def one(**changes: Any) -> list[Accepted]:
    return [read_one(json.dumps(envelope(**changes)).encode(), PRODUCER)]


def many(*items: dict[str, Any]) -> list[Accepted]:
    found = read_many(json.dumps(list(items)).encode(), PRODUCER, lines=False)
    assert not [item for item in found if isinstance(item, Refused)]
    return [item for item in found if isinstance(item, Accepted)]


@pytest.fixture
async def writer(settings: Settings) -> AsyncIterator[SignalWriter]:
    made = SignalWriter(application_url(settings), settings)
    await made.start()
    yield made
    await made.close()


async def count(database: Database, tenant: Tenant, table: str = "signals") -> int:
    async with database.tenant(tenant.schema) as session:
        return int(await session.scalar(text(f"SELECT count(*) FROM {table}")) or 0)


async def test_a_signal_is_there_once_it_is_answered(
    writer: SignalWriter, tenant: Tenant, database: Database
) -> None:
    stored = await writer.submit(tenant.schema, one(metadata={"correlation_id": "c-1"}))
    assert [s.status for s in stored] == ["created"]
    async with database.tenant(tenant.schema) as session:
        row = (
            await session.execute(
                text("SELECT id, occurred_at, correlation_id, metadata, data FROM signals")
            )
        ).one()
    assert row.id == stored[0].id
    assert row.occurred_at.isoformat() == "2026-01-06T08:00:00+00:00"
    assert row.correlation_id == "c-1"
    assert row.metadata == {"correlation_id": "c-1", "schema_version": 1}
    assert row.data == {"snippet": "hello"}


async def test_t4_a_duplicate_names_the_stored_id_and_says_whether_it_differs(
    writer: SignalWriter, tenant: Tenant, database: Database
) -> None:
    first = (await writer.submit(tenant.schema, one(dedupe_key="k")))[0]
    same = (await writer.submit(tenant.schema, one(dedupe_key="k")))[0]
    other = (await writer.submit(tenant.schema, one(dedupe_key="k", data={"snippet": "else"})))[0]
    assert (same.id, same.status, same.content) == (first.id, "duplicate", "same")
    assert (other.id, other.status, other.content) == (first.id, "duplicate", "different")
    assert await count(database, tenant) == 1


async def test_key_order_and_spacing_do_not_make_content_differ(
    writer: SignalWriter, tenant: Tenant
) -> None:
    await writer.submit(tenant.schema, one(dedupe_key="k", data={"a": 1, "b": 2}))
    raw = json.dumps(envelope(dedupe_key="k", data={"b": 2, "a": 1}), indent=3).encode()
    again = await writer.submit(tenant.schema, [read_one(raw, PRODUCER)])
    assert again[0].content == "same"


async def test_a_source_event_id_serves_where_there_is_no_dedupe_key(
    writer: SignalWriter, tenant: Tenant, database: Database
) -> None:
    items = [
        one(source_event_id="7"),
        one(source_event_id="7"),
        one(source_event_id="7", source="b"),
    ]
    states = [(await writer.submit(tenant.schema, item))[0].status for item in items]
    assert states == ["created", "duplicate", "created"]
    assert await count(database, tenant) == 2


async def test_t5_t6_answers_keep_the_order_of_the_request_and_the_first_of_a_key_wins(
    writer: SignalWriter, tenant: Tenant
) -> None:
    old = (await writer.submit(tenant.schema, one(dedupe_key="old")))[0]
    batch = many(
        envelope(dedupe_key="z"),
        envelope(dedupe_key="old"),
        envelope(dedupe_key="a"),
        envelope(dedupe_key="z", data={"n": 2}),
        envelope(),
    )
    stored = await writer.submit(tenant.schema, batch)
    assert [s.status for s in stored] == [
        *("created", "duplicate", "created", "duplicate", "created")
    ]
    assert stored[1].id == old.id
    assert stored[3].id == stored[0].id
    assert stored[3].content == "different"


async def test_t7_overlapping_shuffled_batches_do_not_deadlock(
    settings: Settings, tenant: Tenant, database: Database
) -> None:
    keys = [f"k{n}" for n in range(400)]
    writers = [SignalWriter(application_url(settings), settings) for _ in range(3)]
    for writer in writers:
        await writer.start()
    created = 0

    async def send(writer: SignalWriter, seed: int) -> None:
        nonlocal created
        chosen = random.Random(seed).sample(keys, 200)
        stored = await writer.submit(tenant.schema, many(*(envelope(dedupe_key=k) for k in chosen)))
        created += sum(s.status == "created" for s in stored)

    await asyncio.gather(*(send(writers[n % 3], n) for n in range(30)))
    for writer in writers:
        await writer.close()
    assert created == await count(database, tenant)
    assert await count(database, tenant, "signal_keys") == created


async def test_t8_a_key_that_is_just_being_inserted_is_waited_for(
    writer: SignalWriter, settings: Settings, tenant: Tenant
) -> None:
    async with await psycopg.AsyncConnection.connect(application_url(settings)) as first:
        await first.execute(
            "SELECT set_config('role', %s, true), set_config('search_path', %s, true)",
            (tenant.schema, f'"{tenant.schema}"'),
        )
        item = one(dedupe_key="k")[0]
        await first.execute("INSERT INTO signal_keys VALUES (%s, %s)", (item.row.key, item.row.id))
        waiting = asyncio.create_task(writer.submit(tenant.schema, one(dedupe_key="k")))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await first.commit()
        stored = await waiting
    assert (stored[0].status, stored[0].id) == ("duplicate", item.row.id)


async def test_t47_a_poison_row_fails_alone(
    writer: SignalWriter, tenant: Tenant, database: Database
) -> None:
    # The screening refuses this; put in behind it, it stands for what only PostgreSQL finds wrong.
    poison = one(data={"n": 1}, dedupe_key="poison")
    poison[0].row.data = msgspec.Raw(b'{"a":"\\u0000"}')
    results = await asyncio.gather(
        *(writer.submit(tenant.schema, one(dedupe_key=f"k{n}")) for n in range(20)),
        writer.submit(tenant.schema, poison),
        *(writer.submit(tenant.schema, one(dedupe_key=f"m{n}")) for n in range(20)),
        return_exceptions=True,
    )
    failed = [r for r in results if isinstance(r, BaseException)]
    assert len(failed) == 1
    assert isinstance(failed[0], InvalidError)
    assert await count(database, tenant) == 40


async def test_an_atomic_batch_with_a_poison_row_stores_nothing_and_points_at_it(
    writer: SignalWriter, tenant: Tenant, database: Database
) -> None:
    batch = many(envelope(), envelope(), envelope())
    batch[1].row.data = msgspec.Raw(b'{"a":"\\u0000"}')
    with pytest.raises(InvalidError) as refused:
        await writer.submit(tenant.schema, batch)
    assert refused.value.errors[0]["pointer"] == "/1"
    assert await count(database, tenant) == 0


async def test_a_full_queue_refuses_and_says_when_to_come_back(
    settings: Settings, tenant: Tenant
) -> None:
    small = settings.model_copy(update={"ingest_queue_limit": 5})
    writer = SignalWriter(application_url(settings), small)  # not started: nothing is written
    waiting = [asyncio.create_task(writer.submit(tenant.schema, one())) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as refused:
        await writer.submit(tenant.schema, one())
    assert refused.value.retry_after
    for task in waiting:
        task.cancel()


async def test_t46_closing_answers_everybody_in_flight(
    settings: Settings, tenant: Tenant, database: Database
) -> None:
    writer = SignalWriter(application_url(settings), settings)
    await writer.start()
    sent = [asyncio.create_task(writer.submit(tenant.schema, one())) for _ in range(200)]
    await asyncio.sleep(0)
    await writer.close()
    assert all(task.done() for task in sent)
    assert await count(database, tenant) == sum(len(task.result()) for task in sent) == 200


async def test_t39_a_flood_of_one_tenant_does_not_hold_up_another(
    settings: Settings, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    noisy, quiet = await new_tenant(), await new_tenant()
    few = settings.model_copy(update={"ingest_flush_rows": 10, "ingest_writers": 1})
    writer = SignalWriter(application_url(settings), few)
    flood = [asyncio.create_task(writer.submit(noisy.schema, one())) for _ in range(500)]
    await asyncio.sleep(0)
    late = asyncio.create_task(writer.submit(quiet.schema, one()))
    await asyncio.sleep(0)
    await writer.start()
    await late
    assert sum(task.done() for task in flood) < 50
    await writer.close()
    await asyncio.gather(*flood)


async def test_t2_postgresql_away_is_told_and_its_return_noticed(
    settings: Settings,
) -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "pg") as server:
        own = settings.model_copy(update={"database_url": SecretStr(server.owner_url)})
        migrate(own)
        tenant = await create_tenant(own, slug="acme", name="Acme")
        writer = SignalWriter(application_url(own), own)
        await writer.start()
        await writer.submit(tenant.schema, one(dedupe_key="before"))
        server.kill()
        with pytest.raises(DatabaseUnavailableError) as refused:
            await writer.submit(tenant.schema, one(dedupe_key="during"))
        assert refused.value.retry_after
        server.start()
        stored = await writer.submit(tenant.schema, one(dedupe_key="before"))
        assert stored[0].status == "duplicate"
        await writer.close()


def _ask(signal: SignalView) -> list[DirectiveRequest]:
    return [
        DirectiveRequest(
            type="contact.note",
            params={"snippet": signal.data["snippet"]},
            idempotency_key=f"note:{signal.metadata['correlation_id']}",
        )
    ]


def _raise(signal: SignalView) -> list[DirectiveRequest]:
    raise LookupError(signal.type)


async def test_handlers_ask_for_directives_in_the_same_transaction_and_only_where_installed(
    settings: Settings, tenant: Tenant, database: Database
) -> None:
    handlers = Handlers.of(
        [
            ("notes", {"email.inbound.received": _ask}),
            ("broken", {"email.inbound.received": _raise}),
            ("absent", {"email.inbound.received": _ask}),
        ]
    )
    async with database.tenant(tenant.schema) as session:
        for slug in ("notes", "broken"):
            await session.execute(
                text(
                    "INSERT INTO installations (id, package, version, state, config_checksum)"
                    " VALUES (gen_random_uuid(), :slug, '1.0.0', 'installed', '')"
                ),
                {"slug": slug},
            )
    writer = SignalWriter(application_url(settings), settings, handlers)
    await writer.start()
    first = one(dedupe_key="k", metadata={"correlation_id": "c"})
    stored = await writer.submit(tenant.schema, first)
    await writer.submit(tenant.schema, one(dedupe_key="k", metadata={"correlation_id": "d"}))
    await writer.close()
    async with database.tenant(tenant.schema) as session:
        found = (
            await session.execute(
                text(
                    "SELECT idempotency_key, actor, causation_id, correlation_id, state FROM directives"
                )
            )
        ).all()
        lifecycle = list(
            await session.scalars(
                text("SELECT type FROM signals WHERE type LIKE 'directive.%' ORDER BY id")
            )
        )
    # The duplicate asked for nothing, and neither did a package that is not installed.
    assert found == [("note:c", "package:notes", str(stored[0].id), "c", "pending")]
    assert lifecycle == ["directive.requested", "directive.pending"]
