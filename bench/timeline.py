"""The timeline of one correlation id among a million signals, against its bound of 50 ms."""

import asyncio
import random
import time
from statistics import quantiles

import psycopg
from rich.console import Console

from bench.platform import Bench, platform
from bench.report import Bound
from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.timeline.service import what_happened

SIGNALS = 1_000_000
CHAIN = 10  # signals of a correlation id
CALLS = 300
BOUND_MS = 50.0
_TYPES = "'email.inbound.received', 'mattermost.message.posted', 'agent.execution.completed'"

# As many as in a month of a busy tenant: ten signals a correlation id, a tenth of the chains caused
# by a signal of another. The day index and the lifecycle signals are not what is measured, so their
# triggers rest.
_SEED = f"""
SET session_replication_role = replica;
INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, data, metadata)
SELECT fleetprompt.uuid7(), (ARRAY[{_TYPES}])[1 + n % 3], 'edge.proton_mail',
       now() - make_interval(secs => n * 2.5), 'email', 'm-' || n,
       jsonb_build_object('n', n, 'agent', 'bench', 'folder', 'INBOX', 'bytes', n % 9000),
       jsonb_build_object('schema_version', 1, 'correlation_id', 'chain:' || n / {CHAIN})
FROM generate_series(0, {SIGNALS - 1}) AS n;
INSERT INTO directives (id, type, params, idempotency_key, state, actor, changed_by, correlation_id,
                        causation_id, attempt, finished_at)
SELECT fleetprompt.uuid7(), 'bench.act', '{{}}', 'bench:' || s.id, 'succeeded', 'bench', 'bench',
       'act:' || s.correlation_id, s.id::text, 1, now()
FROM signals s WHERE (s.data ->> 'n')::bigint % {CHAIN * 10} = 0;
INSERT INTO directive_transitions (id, directive_id, from_state, to_state, attempt, changed_by)
SELECT fleetprompt.uuid7(), d.id, step.before, step.after, 1, 'bench' FROM directives d
CROSS JOIN (VALUES ('', 'requested'), ('requested', 'pending'), ('pending', 'running'),
                   ('running', 'succeeded')) AS step (before, after);
INSERT INTO executions (id, kind, state, correlation_id, directive_id, started_at, finished_at)
SELECT fleetprompt.uuid7(), type, 'completed', correlation_id, id, now(), now() FROM directives;
INSERT INTO execution_logs (execution_id, level, message)
SELECT e.id, 'info', 'line ' || n FROM executions e CROSS JOIN generate_series(1, 5) AS n;
SET session_replication_role = origin;
ANALYZE signals, directives, directive_transitions, executions, execution_logs, outbound_messages;
"""


def measure(console: Console) -> list[Bound]:
    """Seed, then ask for random correlation ids, one after the other, as the API does."""
    with platform() as bench:
        began = time.monotonic()
        _seed(bench)
        console.print(f"  {SIGNALS:,} signals stored in {time.monotonic() - began:.0f} s")
        asyncio.run(_ask(bench, 50))  # warm, as a platform that has been running is
        taken = asyncio.run(_ask(bench, CALLS))
    cuts = quantiles(taken, n=100)
    console.print(f"  timeline of one correlation id  p50 {cuts[49]:.1f} ms  p95 {cuts[94]:.1f} ms")
    return [
        Bound(
            f"timeline of one correlation id among {SIGNALS:,} signals, p95",
            cuts[94],
            "ms",
            BOUND_MS,
        )
    ]


def _seed(bench: Bench) -> None:
    with psycopg.connect(bench.server.owner_url, autocommit=True) as connection:
        connection.execute(
            f"SET search_path = {quote_identifier(bench.tenant.schema)}"  # the owner sees every schema
        )
        for statement in _SEED.split(";\n"):
            if statement.strip():
                connection.execute(statement)


async def _ask(bench: Bench, calls: int) -> list[float]:
    """Milliseconds of each call, its transaction included."""
    chosen = random.Random(calls)
    taken = []
    async with Database.application(bench.settings) as database:
        for _ in range(calls):
            chain = f"chain:{chosen.randrange(SIGNALS // CHAIN)}"
            began = time.perf_counter()
            async with database.tenant(bench.tenant.schema) as session:
                found = await what_happened(session, chain)
            taken.append((time.perf_counter() - began) * 1000)
            assert len(found.entries) >= CHAIN
    return taken
