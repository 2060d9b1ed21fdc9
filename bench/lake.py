"""The question of every morning, to the lake and to PostgreSQL: count by type, one tenant, thirty days.

Both hold the same ten million signals, PostgreSQL with all of the product's indexes, vacuumed and analyzed;
both are asked the same SQL, warm and in turn, and must answer alike. The lake's files are written by the
product's own writer and read as ``fleetprompt sql --tenant`` reads them. Takes about five minutes and 6 GB of
disk, nearly all of it for writing the rows.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from bench.platform import Bench, platform
from bench.report import Ratio
from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.lake.days import write_signals
from fleetprompt.lake.views import open_lake

DAYS = 30
ROWS = 10_000_000
_AT_ONCE = 2
_REPEATS = 9

# Ids are what their times make them, as the product's own are.
_FILL = """
INSERT INTO {schema}.signals (id, type, source, occurred_at, inserted_at, data, dedupe_key)
SELECT uuidv7(at - now()),
       (ARRAY['email.inbound.received', 'agent.execution.completed', 'webchat.message.received',
              'agent.execution.started', 'workflow.run.completed'])[1 + n % 5],
       'edge:proton_mail', at, at,
       jsonb_build_object('subject', 'Quarterly figures', 'cost_usd', n % 100 / 1000.0), 'k:' || n
FROM generate_series({first}, {last}) AS n,
     LATERAL (SELECT {start}::timestamptz + {days} * interval '1 day' * ((n - 1.0) / {rows})) AS t (at)
"""
_QUESTION = (
    "SELECT type, count(*) FROM signals WHERE occurred_at >= '{start}' AND occurred_at < '{end}'"
    " GROUP BY type ORDER BY type"
)


def measure(console: Console, *, rows: int = ROWS) -> list[Ratio]:
    """Fill a tenant's table, write its thirty files, and ask both in turn; both must answer alike."""
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start -= timedelta(days=DAYS)
    end = start + timedelta(days=DAYS)
    question = _QUESTION.format(start=start.isoformat(), end=end.isoformat())
    with platform() as bench:
        with Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as progress:
            filled = progress.add_task(f"{rows:,} signals, by day", total=DAYS)
            written = progress.add_task("their files", total=DAYS)
            _fill(bench, start, rows, lambda: progress.advance(filled))
            asyncio.run(_write(bench, start, lambda: progress.advance(written)))
        lake, postgres = _ask(console, bench, question, rows)
    console.print(f"  lake {lake * 1000:.1f} ms, PostgreSQL {postgres * 1000:.1f} ms")
    return [
        Ratio(
            f"count by type, {DAYS} days of {rows:,} rows, lake",
            1 / lake,
            "the same query on PostgreSQL",
            1 / postgres,
            "answers/s",
            target=20.0,
        )
    ]


def _ask(console: Console, bench: Bench, question: str, rows: int) -> tuple[float, float]:
    """Median seconds of an answer, of the lake and of PostgreSQL."""
    lake, postgres = [], []
    with (
        psycopg.connect(bench.server.owner_url) as connection,
        open_lake(bench.settings.lake, tenant=bench.tenant.slug, locked=True) as opened,
    ):
        connection.execute(f"SET search_path = {quote_identifier(bench.tenant.schema)}".encode())
        for number in range(_REPEATS + 1):
            theirs, seconds = _timed(lambda: connection.execute(question.encode()).fetchall())
            postgres.append(seconds)
            ours, seconds = _timed(lambda: opened.sql(question).fetchall())
            lake.append(seconds)
            if ours != theirs or sum(count for _, count in ours) != rows:
                raise RuntimeError("the lake and PostgreSQL do not answer alike")
            if number == 0:
                console.print(
                    f"  first answers: lake {lake.pop() * 1000:.1f} ms,"
                    f" PostgreSQL {postgres.pop() * 1000:.1f} ms"
                )
    return median(lake), median(postgres)


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def _fill(bench: Bench, start: datetime, rows: int, advance: Callable[[], None]) -> None:
    """Each day in a commit of its own, two at once."""
    schema = quote_identifier(bench.tenant.schema)

    def fill_day(number: int) -> None:
        statement = _FILL.format(
            schema=schema,
            first=number * rows // DAYS + 1,
            last=(number + 1) * rows // DAYS,
            rows=rows,
            days=DAYS,
            start=f"'{start.isoformat()}'",
        )
        with psycopg.connect(bench.server.owner_url, autocommit=True) as connection:
            connection.execute(statement.encode())
        advance()

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(fill_day, range(DAYS)))
    with psycopg.connect(bench.server.owner_url, autocommit=True) as connection:
        connection.execute(f"VACUUM (ANALYZE) {schema}.signals".encode())


async def _write(bench: Bench, start: datetime, advance: Callable[[], None]) -> None:
    at_once = asyncio.Semaphore(_AT_ONCE)
    async with Database.application(bench.settings) as database:

        async def one(number: int) -> None:
            async with at_once:
                day = (start + timedelta(days=number)).date()
                await write_signals(database, bench.settings.lake, bench.tenant, day)
                advance()

        await asyncio.gather(*(one(number) for number in range(DAYS)))
