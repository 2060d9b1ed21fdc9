"""A week of signals that come late, twice and between kills: the lake holds each exactly once."""

import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.lake.audit import differences
from fleetprompt.lake.columns import SIGNALS
from fleetprompt.lake.layout import day_file, days_with_files
from fleetprompt.lake.rebuild import rebuild_days
from fleetprompt.lake.stale import StaleDay, forget_marks, settled, stale_days
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Producer, read_one
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.tenants.service import Tenant

START = datetime(2026, 3, 2, tzinfo=UTC)
STEP = timedelta(hours=4)
STEPS = 42


@pytest.fixture
async def writer(settings: Settings) -> AsyncIterator[SignalWriter]:
    made = SignalWriter(application_url(settings), settings)
    await made.start()
    yield made
    await made.close()


def event(key: int, at: datetime) -> bytes:
    return json.dumps(
        {
            "type": "email.inbound.received",
            "source": "edge:imap",
            "occurred_at": at.isoformat(),
            "dedupe_key": f"k{key}",
            "data": {},
        }
    ).encode()


async def marks_of(database: Database, tenant: Tenant, now: datetime) -> list[StaleDay]:
    """The tenant's stale days, those that are new being marked at this instant of the simulation."""
    async with database.platform() as session:
        await session.execute(
            text(
                "UPDATE fleetprompt.stale_partitions SET marked_at = :now"
                " WHERE tenant_schema = :schema AND marked_at > now() - interval '1 hour'"
            ),
            {"now": now, "schema": tenant.schema},
        )
    return [each for each in await stale_days(database) if each.tenant == tenant.slug]


async def repair(
    database: Database, lake: Path, due: list[StaleDay], chance: random.Random
) -> None:
    """What the run does, killed now and then before it could forget the marks, a file half written."""
    for rebuilt in await rebuild_days(database, lake, [(one.tenant, one.day) for one in due]):
        if chance.random() < 0.2:
            folder = day_file(lake, SIGNALS, rebuilt.tenant, rebuilt.day).parent
            (folder / "0123.unfinished").write_bytes(b"half")
            continue
        await forget_marks(database, rebuilt.marks)


def keys_in(lake: Path, slug: str, day: date) -> list[str]:
    table = pq.read_table(day_file(lake, SIGNALS, slug, day), partitioning=None)
    keys: list[str] = table["dedupe_key"].to_pylist()
    return keys


async def test_a_week_of_lateness_repeats_and_kills_reconciles_exactly(
    database: Database, lake: Path, tenant: Tenant, writer: SignalWriter
) -> None:
    """Trap 24."""
    chance = random.Random(20260302)
    sent: dict[int, datetime] = {}
    for number in range(STEPS):
        now = START + number * STEP
        batch = []
        for _ in range(chance.randrange(1, 6)):
            late = timedelta(days=min(10.0, chance.expovariate(1.0)))
            sent[len(sent)] = now - late
            batch.append(len(sent) - 1)
        # Senders that heard nothing send again, some of it days later.
        batch += chance.sample(sorted(sent), k=min(3, len(sent)))
        items = [read_one(event(key, sent[key]), Producer()) for key in batch]
        await writer.submit(tenant.schema, items)
        stale = await marks_of(database, tenant, now)
        await repair(database, lake, settled(stale, now + STEP), chance)
    end = START + STEPS * STEP
    while stale := await marks_of(database, tenant, end):
        await repair(database, lake, settled(stale, end + timedelta(days=1)), chance)

    days = days_with_files(lake, tenant.slug)
    found = {key: day for day in days for key in keys_in(lake, tenant.slug, day)}
    assert sum(len(keys_in(lake, tenant.slug, day)) for day in days) == len(sent)
    assert found == {f"k{key}": at.date() for key, at in sent.items()}
    span = [days[0] + timedelta(days=n) for n in range((days[-1] - days[0]).days + 1)]
    assert await differences(database, lake, tenant, span) == []


async def test_ten_days_late_is_in_its_own_day_within_two_minutes(
    database: Database, lake: Path, tenant: Tenant, writer: SignalWriter
) -> None:
    now = START + timedelta(days=30)
    at = now - timedelta(days=10)
    await writer.submit(tenant.schema, [read_one(event(1, at), Producer())])
    stale = await marks_of(database, tenant, now)
    # The sensor looks every half minute.
    asked = next(
        looked
        for looked in (now + timedelta(seconds=30 * n) for n in range(100))
        if settled(stale, looked)
    )
    assert asked - now <= timedelta(minutes=2)
    await rebuild_days(database, lake, [(one.tenant, one.day) for one in settled(stale, asked)])
    assert keys_in(lake, tenant.slug, at.date()) == ["k1"]
    assert days_with_files(lake, tenant.slug) == [at.date()]
