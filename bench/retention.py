"""Ingest beside retention: the latency of single signals while old ones are removed, and without."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from statistics import median

import psycopg
from rich.console import Console

from bench.ingest import PATH
from bench.load import Load, Measured, drive
from bench.platform import Bench, platform, serving
from bench.report import Bound
from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.lake.rebuild import rebuild_days
from fleetprompt.retention.service import apply_retention

ROUNDS = 3
DAYS, SIGNALS_A_DAY = 4, 25_000
# Half of what one worker bears here, so that latency tells of waiting and not of a full queue.
CLIENTS = 8

_OLD = """
INSERT INTO {schema}.signals (id, type, source, occurred_at, inserted_at, data, dedupe_key)
SELECT gen_random_uuid(), 'email.inbound.received', 'edge:proton_mail', at, at,
       jsonb_build_object('subject', 'Quarterly figures', 'snippet', repeat('figures ', 40)), 'old:' || n
FROM generate_series(1, {rows}) AS n,
     LATERAL (SELECT now() - interval '60 days' + (n % {days}) * interval '1 day') AS t (at);
ANALYZE {schema}.signals;
"""


def measure(console: Console, seconds: float) -> list[Bound]:
    """Rounds without and with retention in turn; p99 of the second against twice that of the first."""
    quiet: list[Measured] = []
    beside: list[Measured] = []
    removed = 0
    with platform() as bench, serving(bench, "fleetprompt_api.app:app") as port:
        with psycopg.connect(bench.server.owner_url) as connection:
            schema = quote_identifier(bench.tenant.schema)
            statement = _OLD.format(schema=schema, rows=DAYS * SIGNALS_A_DAY, days=DAYS)
            connection.execute(statement.encode())
        asyncio.run(_write_lake(bench))
        for number in range(ROUNDS):
            quiet.append(_drive(bench, port, seconds, f"q{number}"))
            with subprocess.Popen(
                [sys.executable, "-m", "bench.retention"],
                env={**bench.environment(), "FLEETPROMPT_DATABASE_URL": bench.server.owner_url},
                stdout=subprocess.PIPE,
                text=True,
            ) as worker:
                if worker.stdout is None or not worker.stdout.readline():
                    raise RuntimeError("retention did not begin")
                beside.append(_drive(bench, port, seconds, f"b{number}"))
                worker.terminate()
            left = _left(bench)
            console.print(
                f"  round {number + 1}  alone p99 {quiet[-1].p99_ms:6.1f} ms"
                f"  beside retention p99 {beside[-1].p99_ms:6.1f} ms"
                f"  {DAYS * SIGNALS_A_DAY - left - removed:>7} old signals removed meanwhile"
            )
            removed = DAYS * SIGNALS_A_DAY - left
    if not removed:
        raise RuntimeError("retention removed nothing meanwhile")
    alone = median(one.p99_ms for one in quiet)
    return [
        Bound(
            "p99 of one signal per POST beside retention",
            median(one.p99_ms for one in beside),
            "ms",
            2 * alone,
            "alone",
            alone,
        )
    ]


def _drive(bench: Bench, port: int, seconds: float, run: str) -> Measured:
    return drive(
        Load(port=port, path=PATH, token=bench.token, clients=CLIENTS, seconds=seconds, run=run)
    )


def _left(bench: Bench) -> int:
    with psycopg.connect(bench.server.owner_url) as connection:
        schema = quote_identifier(bench.tenant.schema)
        statement = f"SELECT count(*) FROM {schema}.signals WHERE dedupe_key LIKE 'old:%'"
        found = connection.execute(statement.encode()).fetchone()
    return int(found[0]) if found else 0


async def _write_lake(bench: Bench) -> None:
    async with Database.application(bench.settings) as database:
        first = (datetime.now(UTC) - timedelta(days=60)).date()
        days = [(bench.tenant.slug, first + timedelta(days=ago)) for ago in range(DAYS + 1)]
        await rebuild_days(database, bench.settings.lake, days)


async def _retain() -> None:
    """In a process of its own, as the nightly job is; what takes seconds to load is loaded before."""
    import_module("pyarrow.compute")
    import_module("pyarrow.parquet")
    from fleetprompt.settings import get_settings
    from fleetprompt.tenants.service import get_tenant

    settings = get_settings()
    async with Database.application(settings) as database:
        async with database.platform() as session:
            tenant = await get_tenant(session, "acme")
        print("begins", flush=True)
        await apply_retention(database, settings, tenant, datetime.now(UTC))


if __name__ == "__main__":
    asyncio.run(_retain())
