"""Durable ingest, fsync on: single signals and batches of 100, each beside what it is compared with."""

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg
from rich.console import Console

from bench.load import Load, Measured, drive, signal
from bench.platform import Bench, platform, serving
from bench.report import Ratio
from fleetprompt.db.engine import quote_identifier
from fleetprompt.runtime.embedded_files import binaries

ROUNDS = 3
PATH = "/api/v1/signals"
_PLAIN_TABLE = """
CREATE SCHEMA IF NOT EXISTS bench;
CREATE TABLE bench.signals (LIKE {schema}.signals INCLUDING ALL);
CREATE UNIQUE INDEX ON bench.signals (dedupe_key);
"""
HANDLED_PACKAGE = "bench_handlers"
_INSTALL_HANDLERS = """
INSERT INTO {schema}.installations (id, package, version, state, config_checksum)
VALUES (gen_random_uuid(), '{package}', '1', 'installed', '')
"""
# The same rows into the same two tables with the same triggers, without HTTP, JSON or Python.
_PGBENCH = """
WITH input (id, key, type, source, occurred_at, subject_type, subject_id, dedupe_key, data, metadata)
AS (VALUES {rows}),
kept AS (INSERT INTO signal_keys (key, signal_id) SELECT key, id FROM input ORDER BY key
         ON CONFLICT (key) DO NOTHING RETURNING signal_id)
INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, dedupe_key, data, metadata)
SELECT * FROM (SELECT id, type, source, occurred_at, subject_type, subject_id, dedupe_key, data, metadata
               FROM input WHERE id IN (SELECT signal_id FROM kept)) AS fresh;
"""


@dataclass(frozen=True)
class Contender:
    """One server and the load that it gets."""

    name: str
    app: str
    path: str = PATH
    batch: int = 1
    clients: int = 32


OURS = Contender("one signal per POST, durable", "fleetprompt_api.app:app")
PLAIN = Contender("plain FastAPI + SQLAlchemy ORM", "bench.plain_app:app", path="/signals")
NOTHING = Contender("the same route without a database", "bench.no_database:app")
HANDLED = Contender("handlers of five types on", "bench.handled_app:app")
BATCHES = Contender("batches of 100, durable", "fleetprompt_api.app:app", batch=100, clients=8)


def measure(console: Console, seconds: float) -> list[Ratio]:
    """Every contender in turn, several rounds, medians."""
    with platform() as bench:
        _prepare(bench)
        rounds: dict[str, list[Measured]] = {}
        pgbench: list[float] = []
        for number in range(ROUNDS):
            for contender in (OURS, HANDLED, PLAIN, NOTHING, BATCHES):
                measured = _one(bench, contender, number, seconds)
                rounds.setdefault(contender.name, []).append(measured)
                console.print(
                    f"  round {number + 1}  {contender.name:<36}"
                    f"{measured.signals_per_second:>9.0f} signals/s"
                    f"  p50 {measured.p50_ms:6.1f} ms  p99 {measured.p99_ms:6.1f} ms"
                )
            pgbench.append(_pgbench(bench, seconds))
            console.print(
                f"  round {number + 1}  {'pgbench, the same INSERT':<36}{pgbench[-1]:>9.0f} signals/s"
            )

    def rate(contender: Contender) -> float:
        return median(m.signals_per_second for m in rounds[contender.name])

    return [
        Ratio(OURS.name, rate(OURS), PLAIN.name, rate(PLAIN), "signals/s", target=2.5),
        Ratio(OURS.name, rate(OURS), NOTHING.name, rate(NOTHING), "signals/s", target=0.6),
        Ratio(HANDLED.name, rate(HANDLED), "handlers off", rate(OURS), "signals/s", target=0.8),
        Ratio(
            BATCHES.name,
            rate(BATCHES),
            "pgbench of the same multi-row INSERT",
            median(pgbench),
            "signals/s",
            target=0.5,
        ),
    ]


def _prepare(bench: Bench) -> None:
    schema = quote_identifier(bench.tenant.schema)
    with psycopg.connect(bench.server.owner_url) as connection:
        connection.execute(_PLAIN_TABLE.format(schema=schema))
        connection.execute(_INSTALL_HANDLERS.format(schema=schema, package=HANDLED_PACKAGE))


def _one(bench: Bench, contender: Contender, number: int, seconds: float) -> Measured:
    with serving(bench, contender.app) as port:
        return drive(
            Load(
                port=port,
                path=contender.path,
                token=bench.token,
                clients=contender.clients,
                batch=contender.batch,
                seconds=seconds,
                run=f"{number}{contender.batch}",
            )
        )


def _pgbench(bench: Bench, seconds: float) -> float:
    """Signals a second of the bare statement: as many connections as the batch load has clients."""
    example = signal("example")
    # pgbench takes a colon before a letter for a variable of its own, so text has none.
    data = json.dumps(example["data"]).replace(":", " : ")
    metadata = json.dumps(example["metadata"]).replace("mail:", "mail-").replace(":", " : ")
    row = (
        "(fleetprompt.uuid7(), gen_random_uuid(), 'email.inbound.received', 'edge.proton_mail',"
        " make_timestamptz(2026, 1, 6, 9, 0, 0, 'UTC'), 'email', gen_random_uuid()::text,"
        f" 'email_in.' || gen_random_uuid(), '{data}'::jsonb, '{metadata}'::jsonb)"
    )
    statement = " ".join(_PGBENCH.format(rows=",".join([row] * 100)).split("\n"))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement)
        script.flush()
        Path(script.name).chmod(0o644)
        done = subprocess.run(
            [
                *(str(binaries() / "pgbench"), "-n", "-M", "prepared"),
                *("-c", str(BATCHES.clients), "-j", "2", "-T", str(int(seconds))),
                *("-f", script.name, bench.server.owner_url),
            ],
            env={
                **os.environ,
                "PGOPTIONS": f"-c role={bench.tenant.schema} -c search_path={bench.tenant.schema}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"pgbench failed: {done.stderr[-500:]}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("tps"))
    return float(line.split("=")[1].split()[0]) * 100
