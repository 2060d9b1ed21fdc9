"""A month of many tenants in Dagster: writing a day of all, repairing a hundredth, reading the grid.

The whole platform runs. Days are marked as changed as ingest marks them, the sensor ``stale_days`` finds
them, and its runs write them. The figures are of those runs, from the sensor's request to their end.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import psycopg
from rich.console import Console

from bench.digests import give_signals, put_off_digests
from bench.directives.running import Dagster, Run, query, running, wait
from bench.platform import Bench
from bench.report import Bound
from bench.tenants import Fleet, fleet
from bench.usage import Usage, resident_mb
from fleetprompt.db.urls import libpq_url
from fleetprompt.runtime.environment import dagster_url

TENANTS = 1000
DAYS = 30
ASSETS = ("signals", "daily_counts")
REPAIRED = 0.01
DAY_SECONDS, GRID_SECONDS, IMPORT_SECONDS, REST_MB = 60.0, 3.0, 3.5, 900.0

_JOB = "rebuild_stale_days"
_PATIENCE = 900.0
# Without a run for so long, the platform is at rest.
_REST_SECONDS = 60.0
_MARK = """
INSERT INTO fleetprompt.stale_partitions (tenant_schema, day, marked_at)
VALUES (%s, %s, now() - interval '1 minute')
"""
# What the UI asks for an asset's grid, and for the numbers above it.
_GRID = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  partitionStats { numMaterialized numPartitions numFailed }
  partitionKeysByDimension { name partitionKeys }
  assetPartitionStatuses { ... on MultiPartitionStatuses { primaryDimensionName ranges {
    primaryDimStartKey primaryDimEndKey
    secondaryDim { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } } }
} } }"""
# One tenant-day's materialisation, as its run stored it, repeated for other days: their events and tags.
_REPEAT = (
    """
CREATE TEMP TABLE repeated AS
SELECT nextval(pg_get_serial_sequence('event_logs', 'id')) AS id, e.id AS of, e.partition AS former,
       to_char(e.day - n, 'YYYY-MM-DD') AS day,
       to_char(e.day - n, 'YYYY-MM-DD') || substr(e.partition, 11) AS partition
FROM (SELECT DISTINCT ON (asset_key, partition) id, partition, left(partition, 10)::date AS day
      FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key = ANY(%(assets)s)
      ORDER BY asset_key, partition, id DESC) e
CROSS JOIN generate_series(1, %(days)s) n
""",
    """
INSERT INTO event_logs (id, run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
SELECT r.id, e.run_id, replace(e.event, r.former, r.partition), e.dagster_event_type, e.timestamp,
       e.step_key, e.asset_key, r.partition
FROM repeated r JOIN event_logs e ON e.id = r.of
""",
    """
INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
SELECT r.id, t.asset_key, t.key,
       CASE t.key WHEN 'dagster/partition/date' THEN r.day ELSE t.value END, t.event_timestamp
FROM repeated r JOIN asset_event_tags t ON t.event_id = r.of
""",
)


def measure(console: Console, tenants: int = TENANTS, days: int = DAYS) -> list[Bound]:
    """The import first, then all that needs the platform."""
    imported = _import_seconds()
    console.print(f"  the code location is imported in {imported:.1f} s")
    with fleet(console, "http://127.0.0.1/hooks/nobody", tenants) as platform:
        put_off_digests(platform)
        with running(console, platform.bench) as dagster:
            held = _at_rest(console, platform, dagster)
            give_signals(platform)
            yesterday = datetime.now(UTC).date() - timedelta(days=1)
            whole = _written(
                console,
                platform,
                dagster,
                [(one.tenant.schema, yesterday) for one in platform.tenants],
            )
            _fill_grid(platform.bench, days - 1)
            chosen = random.Random(days)
            every = [
                (one.tenant.schema, yesterday - timedelta(days=ago))
                for one in platform.tenants
                for ago in range(days)
            ]
            repaired = chosen.sample(every, max(1, round(len(every) * REPAIRED)))
            late = _written(console, platform, dagster, repaired)
            with Usage() as usage:
                cold, warm = _grid_seconds(dagster, tenants * days)
            console.print(f"  two grids, each asked for twice. {usage.told()}")
    grid = f"the grid of {tenants:,} tenants × {days} days"
    return [
        Bound(f"a day of {tenants:,} tenants written to the lake", whole, "s", DAY_SECONDS),
        Bound(
            f"late data: {len(repaired):,} days written again, 1 % of {len(every):,}",
            late,
            "s",
            DAY_SECONDS,
            "all of them, extrapolated",
            late / len(repaired) * len(every),
        ),
        Bound(f"{grid} through GraphQL, cold", cold, "s", GRID_SECONDS, "warm", warm),
        Bound("import of the code location", imported, "s", IMPORT_SECONDS),
        Bound("memory of the whole platform at rest", held, "MB", REST_MB),
    ]


def _import_seconds() -> float:
    """The best of three in fresh processes, after one that leaves the compiled modules behind."""
    command = [sys.executable, "-c", "import fleetprompt_dagster.definitions"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    taken = []
    for _ in range(4):
        began = time.perf_counter()
        subprocess.run(command, env=environment, check=True)
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _at_rest(console: Console, platform: Fleet, dagster: Dagster) -> float:
    many = len(platform.tenants)
    wait("every tenant in the grid", lambda: dagster.partitions("signals").total >= many, _PATIENCE)
    since = time.time()
    wait("a minute without a run", lambda: _rests(dagster, since), _PATIENCE)
    held = resident_mb()
    told = ", ".join(f"{kind} {mb:.0f}" for kind, mb in held.most_common())
    console.print(f"  memory at rest in MB: {told}")
    return float(sum(held.values()))


def _rests(dagster: Dagster, since: float) -> bool:
    ended = [since, *(run.ended_at for run in dagster.runs())]
    return all(at is not None and time.time() - at >= _REST_SECONDS for at in ended)


def _written(
    console: Console, platform: Fleet, dagster: Dagster, days: Iterable[tuple[str, date]]
) -> float:
    """Seconds from the sensor's request to the end of the last run that writes these days."""
    bench = platform.bench
    wait("the end of other runs", dagster.is_idle, _PATIENCE)
    before = {run.id for run in dagster.runs(_JOB)}
    with psycopg.connect(bench.server.owner_url) as connection, connection.cursor() as cursor:
        cursor.executemany(_MARK, list(days))
    with Usage() as usage:
        wait("the first run", lambda: {run.id for run in dagster.runs(_JOB)} - before, _PATIENCE)
        wait("the end of the marks", lambda: not _marks(bench), _PATIENCE)
        wait("the end of the runs", dagster.is_idle, _PATIENCE)
    own = [run for run in dagster.runs(_JOB) if run.id not in before]
    for run in own:
        assert run.status == "SUCCESS", _why(dagster, run)
    took = max(run.ended_at or 0.0 for run in own) - min(run.created_at for run in own)
    console.print(f"  {len(own)} runs wrote them in {took:.1f} s. {usage.told()}")
    return took


def _why(dagster: Dagster, run: Run) -> str:
    """What the run's page says of its failed steps."""
    query = """query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
      ... on ExecutionStepFailureEvent { error { message } failureMetadata { metadataEntries {
        label ... on MarkdownMetadataEntry { mdStr } } } }
      ... on RunFailureEvent { message } } } } }"""
    told = [event for event in dagster.ask(query, id=run.id)["logsForRun"]["events"] if event]
    return f"{run}: {told}"[:4000]


def _marks(bench: Bench) -> int:
    """How many marks of closed days there are."""
    [(many,)] = query(
        bench,
        "SELECT count(*) FROM fleetprompt.stale_partitions"
        " WHERE day < (now() AT TIME ZONE 'UTC')::date",
    )
    return int(many)


def _fill_grid(bench: Bench, days: int) -> None:
    """The same day's events for so many days before it."""
    url = libpq_url(dagster_url(bench.settings, bench.server.owner_url))
    values = {"assets": [f'["{asset}"]' for asset in ASSETS], "days": days}
    with psycopg.connect(url) as connection:
        for statement in _REPEAT:
            connection.execute(statement, values if "%(" in statement else None)
        # As an addition of a tenant does: the counts are made anew from the events.
        connection.execute("UPDATE asset_keys SET cached_status_data = NULL")


def _grid_seconds(dagster: Dagster, least: int) -> tuple[float, float]:
    """The slowest first answer of an asset's grid, and the slowest second one."""
    taken: list[list[float]] = [[], []]
    for asset in ASSETS:
        for turn in taken:
            began = time.perf_counter()
            found = dagster.ask(_GRID, key={"path": [asset]})["assetNodeOrError"]
            turn.append(time.perf_counter() - began)
            assert found["partitionStats"]["numMaterialized"] >= least, found["partitionStats"]
    return max(taken[0]), max(taken[1])
