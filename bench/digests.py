"""The digests of many tenants that are due at one minute, and beside them a Dagster run for each.

The whole platform runs: the schedule of the minute finds the slots, its runs send them, and a stand-in
for Mattermost notes when it saw each post.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
from rich.console import Console

from bench.directives.running import Dagster, Run, running, wait
from bench.platform import Bench
from bench.report import Bound
from bench.tenants import Digested, Fleet, fleet
from bench.usage import Usage
from fleetprompt.db.engine import quote_identifier
from tests.doubles.mattermost import RunningMattermost, running_mattermost

TENANTS = 1000
ALONE = 10
BOUND_SECONDS = 60.0
MOST_RUNS = 8
SIGNALS = 100

_PATIENCE = 900.0
_MINUTE = timedelta(minutes=1)
# The slots are there some time before they are due.
_AHEAD = timedelta(seconds=20)

# A day of a small tenant, with failures of two kinds, costs and mail. Marks of stale days are not what
# is measured, so the triggers rest.
_SIGNALS = f"""
INSERT INTO signals (id, type, source, occurred_at, data, metadata)
SELECT fleetprompt.uuid7(),
       (ARRAY['email.inbound.received', 'agent.execution.completed', 'agent.execution.completed',
              'webchat.message.received', 'agent.execution.failed'])[1 + n % 5],
       'bench', now() - make_interval(mins => 14 * n),
       CASE n % 5
       WHEN 0 THEN jsonb_build_object('subject', 'Order ' || n, 'attachments', n % 3)
       WHEN 4 THEN jsonb_build_object('execution_id', 'run-' || n, 'agent', 'triage',
            'error_kind', (ARRAY['rate_limit', 'network'])[1 + n % 2],
            'error_message', 'the model''s endpoint answered ' || 500 + n % 4)
       ELSE jsonb_build_object('execution_id', 'run-' || n, 'agent', 'triage', 'cost_usd', n * 0.001,
            'tokens_in', 100 + n, 'tokens_out', 10 + n)
       END,
       jsonb_build_object('schema_version', 1, 'correlation_id', 'chain:' || n / 4)
FROM generate_series(0, {SIGNALS - 1}) AS n
"""
_SLOT = """
INSERT INTO fleetprompt.schedule_slots
    (tenant_schema, installation_id, local_date, due_at, window_start, window_end, zone)
VALUES (%s, %s, %s, %s, %s, %s, %s)
-- The platform may have planned the date meanwhile.
ON CONFLICT (tenant_schema, installation_id, local_date) DO UPDATE
SET due_at = excluded.due_at, window_start = excluded.window_start, window_end = excluded.window_end
"""


def measure(console: Console, tenants: int = TENANTS, alone: int = ALONE) -> list[Bound]:
    """All at one minute, then ``alone`` more with a run each, from which all are extrapolated."""
    with (
        running_mattermost() as mattermost,
        fleet(console, mattermost.hook_url, tenants) as platform,
    ):
        give_signals(platform)
        put_off_digests(platform)
        with running(console, platform.bench) as dagster:
            together = _together(console, platform, dagster, mattermost)
            for_each = _run_for_each(platform.bench, dagster, mattermost, platform.tenants[:alone])
    console.print(f"  a Dagster run for each of {alone}: all posted after {for_each:.1f} s")
    return [
        Bound(
            f"{tenants:,} tenants' digests due at one minute, last one posted after",
            together,
            "s",
            BOUND_SECONDS,
            f"a Dagster run for each, from {alone}",
            for_each / alone * tenants,
        )
    ]


def put_off_digests(platform: Fleet) -> None:
    """Have no tenant's own digest fall due meanwhile: each is due twelve hours from now."""
    away = datetime.now(UTC) + timedelta(hours=12)
    with psycopg.connect(platform.bench.server.owner_url, autocommit=True) as connection:
        connection.execute("DELETE FROM fleetprompt.schedule_slots WHERE state = 'planned'")
        for one in platform.tenants:
            connection.execute(f"SET search_path = {quote_identifier(one.tenant.schema)}".encode())
            connection.execute(
                "UPDATE installations SET config = jsonb_set(config, '{schedule_time}', to_jsonb(%s::text))"
                " WHERE id = %s",
                (away.astimezone(ZoneInfo(one.zone)).strftime("%H:%M"), one.installation),
            )


def give_signals(platform: Fleet) -> None:
    """A day of signals for every tenant."""
    with psycopg.connect(platform.bench.server.owner_url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for one in platform.tenants:
            connection.execute(f"SET search_path = {quote_identifier(one.tenant.schema)}".encode())
            connection.execute(_SIGNALS)


def _together(
    console: Console, platform: Fleet, dagster: Dagster, mattermost: RunningMattermost
) -> float:
    """Seconds from the minute at which all are due to the last post."""
    many = len(platform.tenants)
    wait(
        "every tenant in the grid",
        lambda: dagster.partitions("daily_digest").total >= many,
        _PATIENCE,
    )
    wait("the end of other runs", dagster.is_idle, _PATIENCE)
    due_at = (datetime.now(UTC) + _AHEAD).replace(second=0, microsecond=0) + _MINUTE
    _plan(platform.bench, platform.tenants, due_at)
    wait("the minute", lambda: datetime.now(UTC) >= due_at, _PATIENCE)
    with Usage() as usage:
        wait("all posts", lambda: len(mattermost.posts) >= many, _PATIENCE)
        wait("the end of the runs", lambda: _ended(dagster.runs("send_digests")), _PATIENCE)
    runs = dagster.runs("send_digests")
    assert len(mattermost.posts) == many, f"{len(mattermost.posts)} posts of {many} digests"
    assert len(runs) <= MOST_RUNS, runs
    assert min(post.create_at for post in mattermost.posts) >= due_at.timestamp() * 1000
    assert all(run.status == "SUCCESS" for run in runs), runs
    seen = [post.create_at / 1000 - due_at.timestamp() for post in mattermost.posts]
    ended = max(run.ended_at or 0.0 for run in runs) - due_at.timestamp()
    wait(
        "every digest in the grid",
        lambda: dagster.partitions("daily_digest").materialized >= many,
        _PATIENCE,
    )
    console.print(
        f"  {many:,} digests in {len(runs)} runs: first posted after {seen[0]:.1f} s, last after "
        f"{seen[-1]:.1f} s, all recorded after {ended:.1f} s"
    )
    console.print(f"  {usage.told()}")
    return seen[-1]


def _run_for_each(
    bench: Bench, dagster: Dagster, mattermost: RunningMattermost, chosen: Sequence[Digested]
) -> float:
    """Seconds until the digest of each is posted when each has a run of its own, all queued at once."""
    dagster.stop_schedule("due_digests")
    wait("the end of other runs", dagster.is_idle, _PATIENCE)
    posted = len(mattermost.posts)
    before = {run.id for run in dagster.runs("send_digests")}
    due_at = datetime.now(UTC)
    slots = _plan(bench, chosen, due_at, days=1)
    began = time.time()
    for slot in slots:
        dagster.launch("send_digests", {"ops": {"send_due_digests": {"config": {"slots": [slot]}}}})
    wait("all posts", lambda: len(mattermost.posts) >= posted + len(chosen), _PATIENCE)
    wait("the end of the runs", lambda: _ended(dagster.runs("send_digests")), _PATIENCE)
    own = [run for run in dagster.runs("send_digests") if run.id not in before]
    assert [run.status for run in own] == ["SUCCESS"] * len(chosen), own
    return mattermost.posts[-1].create_at / 1000 - began


def _ended(runs: Sequence[Run]) -> bool:
    return bool(runs) and all(run.ended_at for run in runs)


def _plan(
    bench: Bench, chosen: Sequence[Digested], due_at: datetime, *, days: int = 0
) -> list[dict[str, str]]:
    """Slots that are due then, of windows of 24 hours; as a run's config names them.

    ``days`` is how far the local date lies after that of the instant: each date has one slot.
    """
    slots = []
    with psycopg.connect(bench.server.owner_url, autocommit=True) as connection:
        connection.execute("DELETE FROM fleetprompt.schedule_slots WHERE state = 'planned'")
        with connection.transaction(), connection.cursor() as cursor:
            for one in chosen:
                local_date = due_at.astimezone(ZoneInfo(one.zone)).date() + timedelta(days=days)
                window = due_at - timedelta(days=1), due_at
                own = (one.tenant.schema, one.installation, local_date, due_at, *window, one.zone)
                cursor.execute(_SLOT, own)
                slots.append(
                    {
                        "tenant": one.tenant.slug,
                        "installation": str(one.installation),
                        "local_date": local_date.isoformat(),
                    }
                )
    return slots
