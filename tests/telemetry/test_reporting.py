"""Counts of many processes: none is lost, none counts twice, and no sum ever falls."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.telemetry.catalogue import FLUSH_ROWS, INGEST_REFUSED
from fleetprompt.telemetry.counting import Amounts, Recorder, Series
from fleetprompt.telemetry.process import ProcessState
from fleetprompt.telemetry.reporting import FOLDED_ID, Reporter, Role, fold_ended, sums
from fleetprompt.tenants.service import Tenant


def reporter_of(database: Database, role: Role = "worker") -> tuple[Recorder, Reporter]:
    """A process of its own, as far as counting goes."""
    recorder = Recorder()
    return recorder, Reporter(database, role, recorder=recorder, process=ProcessState())


def unique_reason() -> tuple[str, ...]:
    """Labels that no other test has."""
    return (f"test-{new_id().hex[-12:]}",)


async def summed(database: Database, series: Series) -> Amounts | None:
    async with database.platform() as session:
        return (await sums(session)).get(series)


async def rows_of(database: Database, reporter: Reporter) -> int:
    async with database.platform() as session:
        found = await session.scalar(
            text("SELECT count(*) FROM fleetprompt.worker_counters WHERE process_id = :id"),
            {"id": reporter.id},
        )
    return found or 0


async def silent_for(database: Database, reporter: Reporter, seconds: int) -> None:
    """Make a process look as if it had not been heard of for so long."""
    async with database.platform() as session:
        await session.execute(
            text(
                "UPDATE fleetprompt.worker_processes SET seen_at = now() - make_interval(secs => :age),"
                " ended_at = ended_at - make_interval(secs => :age) WHERE id = :id"
            ),
            {"id": reporter.id, "age": seconds},
        )


async def test_what_processes_counted_is_one_sum(database: Database) -> None:
    reason = unique_reason()
    for number in (2, 3):
        recorder, reporter = reporter_of(database)
        recorder.add(INGEST_REFUSED, reason, number)
        await reporter.flush()
        recorder.add(INGEST_REFUSED, reason)
        await reporter.end()
    assert await summed(database, (INGEST_REFUSED.name, reason)) == [7.0]


async def test_a_histogram_keeps_its_sum_and_each_bucket(database: Database) -> None:
    recorder, reporter = reporter_of(database)
    before = await summed(database, (FLUSH_ROWS.name, ())) or [0.0] * 12
    for rows in (1, 2, 7, 2000):
        recorder.observe(FLUSH_ROWS, rows)
    await reporter.flush()
    recorder.observe(FLUSH_ROWS, 10)
    await reporter.flush()
    after = await summed(database, (FLUSH_ROWS.name, ()))
    assert after is not None
    added = [b - a for a, b in zip(before, after, strict=True)]
    assert added == [2020.0, 1, 1, 0, 2, 0, 0, 0, 0, 0, 0, 1]


class LosingAnswers(Database):
    """Commits, and then nobody hears of it."""

    losing = True

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[AsyncSession]:
        """A transaction whose end is not confirmed."""
        async with super().platform() as session:
            yield session
        if self.losing:
            raise DatabaseUnavailableError


async def test_a_flush_whose_commit_nobody_confirmed_counts_once(
    database: Database, settings: Settings
) -> None:
    reason = unique_reason()
    losing = LosingAnswers(database.url, settings)
    recorder, reporter = reporter_of(losing)
    recorder.add(INGEST_REFUSED, reason, 5)
    with pytest.raises(DatabaseUnavailableError):
        await reporter.flush()
    assert await summed(database, (INGEST_REFUSED.name, reason)) == [5.0]
    recorder.add(INGEST_REFUSED, reason, 1)
    assert reporter.unwritten()[INGEST_REFUSED.name, reason] == [6.0]
    losing.losing = False
    await reporter.flush()
    assert await summed(database, (INGEST_REFUSED.name, reason)) == [6.0]
    assert reporter.unwritten() == {}
    await losing.close()


async def test_rows_of_ended_processes_are_folded_and_the_sum_stays(database: Database) -> None:
    reason = unique_reason()
    reporters = []
    for number in (1, 10):
        recorder, reporter = reporter_of(database)
        recorder.add(INGEST_REFUSED, reason, number)
        recorder.observe(FLUSH_ROWS, 3)
        await reporter.end()
        await silent_for(database, reporter, 3600)
        reporters.append(reporter)
    before = await summed(database, (FLUSH_ROWS.name, ()))
    await fold_ended(database)
    assert [await rows_of(database, one) for one in reporters] == [0, 0]
    assert await summed(database, (INGEST_REFUSED.name, reason)) == [11.0]
    assert await summed(database, (FLUSH_ROWS.name, ())) == before
    async with database.platform() as session:
        folded = await session.scalar(
            text(
                "SELECT amounts[1] FROM fleetprompt.worker_counters"
                " WHERE process_id = :id AND labels = :labels"
            ),
            {"id": FOLDED_ID, "labels": list(reason)},
        )
    assert folded == 11.0


async def test_a_process_that_was_taken_for_dead_and_comes_back_counts_on(
    database: Database,
) -> None:
    """As after SIGSTOP and SIGCONT: what was folded is not added again."""
    reason = unique_reason()
    recorder, reporter = reporter_of(database)
    recorder.add(INGEST_REFUSED, reason, 4)
    await reporter.flush()
    await silent_for(database, reporter, 3600)
    await fold_ended(database)
    assert await rows_of(database, reporter) == 0
    recorder.add(INGEST_REFUSED, reason, 2)
    await reporter.flush()
    assert await summed(database, (INGEST_REFUSED.name, reason)) == [6.0]


async def test_a_live_process_is_not_folded(database: Database) -> None:
    recorder, reporter = reporter_of(database)
    recorder.add(INGEST_REFUSED, unique_reason())
    await reporter.flush()
    await fold_ended(database)
    assert await rows_of(database, reporter) == 1


async def test_no_sum_ever_falls_while_processes_come_and_go(database: Database) -> None:
    """Flushes, ends, folds and reads at once, in an order that differs each time."""
    reason, seed = unique_reason(), random.randrange(1_000_000)
    chance = random.Random(seed)
    counted, reading = 0, True
    series = (INGEST_REFUSED.name, reason)

    async def process() -> None:
        nonlocal counted
        recorder, reporter = reporter_of(database)
        for _ in range(chance.randrange(1, 6)):
            recorder.add(INGEST_REFUSED, reason)
            counted += 1
            await reporter.flush()
        await reporter.end()
        await silent_for(database, reporter, 3600)

    async def fold() -> None:
        while reading:
            await fold_ended(database)
            await asyncio.sleep(chance.random() / 100)

    async def read() -> None:
        last = 0.0
        while reading:
            (now,) = await summed(database, series) or [0.0]
            assert now >= last, f"seed {seed}"
            last = now

    others = [asyncio.create_task(fold()), asyncio.create_task(read())]
    await asyncio.gather(*(process() for _ in range(12)))
    reading = False
    await asyncio.gather(*others)
    assert await summed(database, series) == [float(counted)], f"seed {seed}"


async def test_what_the_last_flush_could_not_write_is_not_forgotten(settings: Settings) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:9/none", settings)
    recorder, reporter = reporter_of(nowhere)
    recorder.add(INGEST_REFUSED, ("invalid",))
    await reporter.end()
    assert recorder.take() == {(INGEST_REFUSED.name, ("invalid",)): [1.0]}
    await nowhere.close()


async def test_a_tenant_may_not_see_the_tables(database: Database, tenant: Tenant) -> None:
    for table in ("worker_counters", "worker_processes"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with database.tenant(tenant.schema) as session:
                await session.execute(text(f"SELECT 1 FROM fleetprompt.{table}"))
