"""The platform's vital signs, as PostgreSQL has them: what is due, what lags, who is at work."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.telemetry.moving import DIRECTIVE_LIMIT, SLOT_LIMIT, STALE_DAY_LIMIT

# An API process that has not written its counters for so long is gone or stands still.
_API_SILENT = timedelta(minutes=2).total_seconds()

_LOOK = text(
    """
    SELECT jsonb_build_object(
      'directive_due', (SELECT extract(epoch FROM now() - min(due_at)) FROM fleetprompt.directive_queue
          WHERE target = 'platform' AND due_at <= now()),
      'directives_due', (SELECT count(*) FROM fleetprompt.directive_queue
          WHERE target = 'platform' AND due_at <= now()),
      'slot_due', (SELECT extract(epoch FROM now() - min(due_at)) FROM fleetprompt.schedule_slots
          WHERE state = 'planned' AND due_at <= now()),
      'stale_day', (SELECT extract(epoch FROM now() - min(marked_at)) FROM fleetprompt.stale_partitions s
          JOIN fleetprompt.organizations o ON o.schema_name = s.tenant_schema AND o.state = 'active'),
      'workers', (SELECT count(*) FROM fleetprompt.workers
          WHERE left_at IS NULL AND seen_at > now() - interval '20 seconds'),
      'api', (SELECT count(*) FROM fleetprompt.worker_processes
          WHERE role = 'api' AND ended_at IS NULL AND seen_at > now() - interval '2 minutes'),
      'api_seen', (SELECT extract(epoch FROM now() - max(seen_at)) FROM fleetprompt.worker_processes
          WHERE role = 'api'),
      'approval', (SELECT extract(epoch FROM now() - min(created_at)) FROM fleetprompt.approvals_waiting))
    """
)


@dataclass(frozen=True, slots=True)
class Vital:
    """One sign: its value in ``unit``, the limit if it has one, what it means, and its runbook."""

    name: str
    value: float
    unit: str
    limit: float | None
    meaning: str
    runbook: str

    @property
    def ok(self) -> bool:
        """Whether it is within its limit."""
        return self.limit is None or self.value <= self.limit


async def look(database: Database) -> list[Vital]:
    """Every sign, in one statement; DatabaseUnavailableError where PostgreSQL does not answer."""
    async with database.platform() as session:
        found: dict[str, Any] = (await session.execute(_LOOK)).scalar_one()

    def age(name: str) -> float:
        return round(max(0.0, found[name] or 0.0), 1)

    return [
        Vital(
            "oldest_due_directive",
            age("directive_due"),
            "s",
            DIRECTIVE_LIMIT,
            "How long the oldest due directive waits.",
            "no_directive_is_stuck",
        ),
        Vital(
            "due_directives",
            found["directives_due"],
            "directives",
            None,
            "Directives that are due now.",
            "no_directive_is_stuck",
        ),
        Vital(
            "oldest_due_digest",
            age("slot_due"),
            "s",
            SLOT_LIMIT,
            "How long the oldest due digest has not been asked for.",
            "every_digest_is_on_time",
        ),
        Vital(
            "oldest_stale_day",
            age("stale_day"),
            "s",
            STALE_DAY_LIMIT,
            "How long the lake lags behind the signals.",
            "no_day_stays_stale",
        ),
        Vital(
            "api_last_seen",
            age("api_seen"),
            "s",
            _API_SILENT if found["api_seen"] is not None else None,
            "How long ago an API process was last heard of.",
            "platform_is_well",
        ),
        Vital(
            "api_processes", found["api"], "processes", None, "API processes.", "platform_is_well"
        ),
        Vital(
            "workers", found["workers"], "workers", None, "Drains at work.", "no_directive_is_stuck"
        ),
        Vital(
            "oldest_approval",
            age("approval"),
            "s",
            None,
            "How long the oldest approval waits for people.",
            "platform_is_well",
        ),
    ]
