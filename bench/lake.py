"""The question of every morning, to the lake and to PostgreSQL: count by type, one tenant, thirty days."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import psycopg
from rich.console import Console

from bench.platform import Bench, platform
from bench.report import Ratio
from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.lake.days import write_signals
from fleetprompt.lake.views import open_lake

DAYS = 30
ROWS = 10_000_000
_AT_ONCE = 2
_REPEATS = 7

_FILL = """
INSERT INTO {schema}.signals (id, type, source, occurred_at, inserted_at, data, dedupe_key)
SELECT gen_random_uuid(),
       (ARRAY['email.inbound.received', 'agent.execution.completed', 'webchat.message.received',
              'agent.execution.started', 'workflow.run.completed'])[1 + n % 5],
       'edge:proton_mail', at, at,
       jsonb_build_object('subject', 'Quarterly figures', 'cost_usd', n % 100 / 1000.0), 'k:' || n
FROM generate_series(1, {rows}) AS n,
     LATERAL (SELECT {start}::timestamptz + {days} * interval '1 day' * (n - 1) / {rows}) AS t (at)
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
        console.print(f"  filling {rows:,} signals and writing {DAYS} files")
        _fill(bench, start, rows)
        asyncio.run(_write(bench, start))
        lake, postgres = [], []
        with (
            psycopg.connect(bench.server.owner_url) as connection,
            open_lake(bench.settings.lake, tenant=bench.tenant.slug) as opened,
        ):
            connection.execute(
                f"SET search_path = {quote_identifier(bench.tenant.schema)}".encode()
            )
            for _ in range(_REPEATS):
                theirs, seconds = _timed(lambda: connection.execute(question.encode()).fetchall())
                postgres.append(seconds)
                ours, seconds = _timed(lambda: opened.sql(question).fetchall())
                lake.append(seconds)
                if ours != theirs or sum(count for _, count in ours) != rows:
                    raise RuntimeError("the lake and PostgreSQL do not answer alike")
    console.print(
        f"  lake {median(lake) * 1000:.1f} ms, PostgreSQL {median(postgres) * 1000:.1f} ms"
    )
    return [
        Ratio(
            f"count by type, {DAYS} days of {rows:,} rows, lake",
            1 / median(lake),
            "the same query on PostgreSQL",
            1 / median(postgres),
            "answers/s",
            target=20.0,
        )
    ]


def _timed(work: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def _fill(bench: Bench, start: datetime, rows: int) -> None:
    with psycopg.connect(bench.server.owner_url, autocommit=True) as connection:
        schema = quote_identifier(bench.tenant.schema)
        literal = f"'{start.isoformat()}'"
        statement = _FILL.format(schema=schema, rows=rows, days=DAYS, start=literal)
        connection.execute(statement.encode())
        connection.execute(f"VACUUM (ANALYZE) {schema}.signals".encode())


async def _write(bench: Bench, start: datetime) -> None:
    at_once = asyncio.Semaphore(_AT_ONCE)
    async with Database.application(bench.settings) as database:

        async def one(number: int) -> None:
            async with at_once:
                day = (start + timedelta(days=number)).date()
                await write_signals(database, bench.settings.lake, bench.tenant, day)

        await asyncio.gather(*(one(number) for number in range(DAYS)))
