"""The benchmark of the directive engine, in a tiny form."""

import asyncio
import io
import re

import psycopg
import pytest
from rich.console import Console

from bench.directives import latency, throughput
from bench.directives.audit import audited
from bench.directives.contenders import contenders
from bench.platform import Bench, platform
from bench.report import Bound, Ratio
from fleetprompt.db.engine import quote_identifier

pytestmark = pytest.mark.slow

EACH = 44


def test_both_do_the_same_work_in_turns_and_a_thin_audit_does_not_pass() -> None:
    told = io.StringIO()
    console = Console(file=told, soft_wrap=True)

    async def measure(bench: Bench) -> tuple[Ratio, list[Bound]]:
        async with contenders(bench) as (ours, theirs):
            ratio = await throughput.measure(console, bench, ours, theirs, each=EACH)
            bounds = await latency.measure(console, ours, theirs, samples=9)
            _forget_the_log(bench)
            with pytest.raises(AssertionError, match="log lines"):
                audited(bench, ours.tenants)
            return ratio, bounds

    with platform() as bench:
        ratio, (p50, p99) = asyncio.run(measure(bench))
    assert ratio.value > 0
    assert ratio.against > 0
    assert 0 < p50.value <= p99.value
    assert p50.beside is not None
    assert p99.beside is not None
    assert 0 < p50.beside <= p99.beside
    assert len(re.findall(r"round \d", told.getvalue())) == 2 * throughput.ROUNDS
    assert "4 transitions, 4 lifecycle signals, 1 executions, 1 log lines" in told.getvalue()


def _forget_the_log(bench: Bench) -> None:
    with psycopg.connect(bench.server.owner_url) as connection:
        schema = quote_identifier(bench.tenant.schema)
        connection.execute(f"DELETE FROM {schema}.execution_logs".encode())
