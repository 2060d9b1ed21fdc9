"""Whether work moves: what is due is being begun, or nothing has been due for long.

A process that answers and a database that is there say nothing of that: a dead daemon, a sensor that
is off or a lost listener look healthy otherwise (research/platform.md, A6). What does not count as
standing still: connectors' directives, whose connectors may be offline; what is scheduled for
later; a long queue that somebody works off, in whatever order.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.lake.stale import TODAY_SETTLES_AT_MOST
from fleetprompt.telemetry.process import ProcessState

# Seconds. A cold drain takes about ten; a second one is started beside a silent one after sixty.
DIRECTIVE_LIMIT = 120.0
SLOT_LIMIT = 300.0
STALE_DAY_LIMIT = TODAY_SETTLES_AT_MOST.total_seconds() + 3600.0
LISTENER_LIMIT = 60.0
# Work that was begun within so many seconds shows that somebody is at it.
RECENTLY = 60.0

_LOOK = text(
    """
    SELECT jsonb_build_object(
      'directive', (SELECT extract(epoch FROM now() - min(due_at)) FROM fleetprompt.directive_queue
          WHERE target = 'platform' AND due_at <= now()),
      'started', (SELECT extract(epoch FROM now() - max(last_start_at))
          FROM fleetprompt.worker_processes),
      'slot', (SELECT extract(epoch FROM now() - min(due_at)) FROM fleetprompt.schedule_slots
          WHERE state = 'planned' AND due_at <= now()),
      'settled', (SELECT extract(epoch FROM now() - max(settled_at)) FROM fleetprompt.schedule_slots
          WHERE settled_at > now() - interval '1 hour'),
      'stale', (SELECT extract(epoch FROM now() - marked_at) FROM fleetprompt.stale_partitions s
          WHERE EXISTS (SELECT FROM fleetprompt.organizations o
                        WHERE o.schema_name = s.tenant_schema AND o.state = 'active')
          ORDER BY id LIMIT 1))
    """
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``seconds`` is how long it has lasted, None if there is nothing.

    ``meaning`` says in plain words what was found, and where it is not ``ok``, what to do.
    """

    name: str
    ok: bool
    seconds: float | None
    limit_seconds: float | None
    meaning: str


async def look(database: Database, process: ProcessState) -> list[Check]:
    """Every check; DatabaseUnavailableError where PostgreSQL does not answer."""
    async with database.platform() as session:
        found: dict[str, Any] = (await session.execute(_LOOK)).scalar_one()
    return [
        _aged(
            "directives",
            found["directive"],
            DIRECTIVE_LIMIT,
            since=found["started"],
            fine="Directives are started in time.",
            busy="Directives have waited, and are being worked off.",
            stuck="Directives wait and none is started. See that the Dagster daemon and the sensor "
            "`due_directives` run and that the run queue is not full, then launch `drain_directives` by "
            "hand; leases make that safe.",
        ),
        _aged(
            "digests",
            found["slot"],
            SLOT_LIMIT,
            since=found["settled"],
            fine="Digests are asked for in time.",
            busy="Digests are late, and are being worked off.",
            stuck="Digests are due and not asked for. See that the Dagster daemon and the schedule "
            "`due_digests` run; what is late within the grace is still sent.",
        ),
        _aged(
            "lake",
            found["stale"],
            STALE_DAY_LIMIT,
            since=None,
            fine="The lake follows the signals.",
            busy="",
            stuck="Days with new signals are not written to the lake. See that the Dagster daemon and "
            "the sensor `stale_days` run, and what its last runs say.",
        ),
        _listener(process, "signals"),
        _listener(process, "directives"),
    ]


def _aged(
    name: str,
    seconds: float | None,
    limit: float,
    *,
    since: float | None,
    fine: str,
    busy: str,
    stuck: str,
) -> Check:
    age = None if seconds is None else round(max(0.0, seconds), 3)
    if age is None or age <= limit:
        return Check(name, True, age, limit, fine)
    if since is not None and since <= RECENTLY:
        return Check(name, True, age, limit, busy)
    return Check(name, False, age, limit, stuck)


def _listener(process: ProcessState, channel: Any) -> Check:
    deaf = process.seconds_deaf(channel)
    name, age = f"listener_{channel}", round(deaf, 3) if deaf else None
    if deaf <= LISTENER_LIMIT:
        return Check(name, True, age, LISTENER_LIMIT, f"This process hears of {channel}.")
    return Check(
        name,
        False,
        age,
        LISTENER_LIMIT,
        f"This process has no connection to hear of {channel} and only polls, so that everything comes "
        "later. A pooler in front of PostgreSQL must pass sessions through for LISTEN.",
    )
