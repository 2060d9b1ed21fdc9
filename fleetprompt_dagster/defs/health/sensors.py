"""Looking after the platform: vital signs, failed runs and failed checks, told to its operators."""

import contextlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import IdempotencyMismatchError, NotFoundError
from fleetprompt.health.alerts import ALERT
from fleetprompt.secrets import redact
from fleetprompt.tenants.service import get_tenant
from fleetprompt_dagster.defs.health.checks import (
    platform_health,
    told,
    vitals_metadata,
    vitals_of,
)
from fleetprompt_dagster.defs.health.episodes import (
    Alert,
    Seen,
    follow,
    read_episodes,
    write_episodes,
)
from fleetprompt_dagster.metadata import Metadata
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runbooks import RUNS, runbook, runbook_address

_TELL_EVERY_SECONDS = 300.0
_FIRST_LOOK_BACK = timedelta(hours=1)
# More changes than these in one look are told with the next ones.
_MOST_RUNS = 500
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_DETAIL_LIMIT = 1000
_OWN_CHECK = dg.AssetCheckKey(platform_health.key, "platform_is_well")


@dg.sensor(
    name="operators",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description=(
        "Tells the vital signs on `platform_health` every five minutes, and asks for an alert to the "
        "operators' Mattermost when a job or a check begins to fail, still fails six hours later, or is "
        "well again."
    ),
)
def operators_sensor(
    context: dg.SensorEvaluationContext, platform: PlatformResource
) -> dg.SkipReason:
    """One look. Where alerts cannot be asked for, the cursor stays and the next tick asks again."""
    cursor = json.loads(context.cursor or "{}")
    now = platform.now()
    since = cursor.get("since", (now - _FIRST_LOOK_BACK).timestamp())
    runs, since = _runs(context.instance, since, platform)
    checks, newest_check = _checks(context, cursor.get("check", 0))
    vitals = vitals_of(context.instance, platform)
    well = all(one.ok for one in vitals)
    changed = well != cursor.get("well", True)
    if changed or now.timestamp() - cursor.get("told", 0.0) >= _TELL_EVERY_SECONDS:
        metadata = vitals_metadata(vitals)
        _tell_vitals(context.instance, metadata, well, told(vitals))
        cursor["told"] = now.timestamp()
    if changed:
        page = runbook_address(_OWN_CHECK.name)
        checks.append(Seen("platform", well, now.timestamp(), told(vitals), page))
    episodes, alerts = follow(
        read_episodes(cursor.get("episodes")),
        sorted([*runs, *checks], key=lambda one: one.at),
        now.timestamp(),
    )
    asked = not alerts or platform.run(
        lambda database: _ask(database, platform.settings().operations_tenant, alerts)
    )
    context.update_cursor(
        json.dumps(
            {
                **cursor,
                "since": since,
                "check": newest_check,
                "well": well,
                "episodes": write_episodes(episodes),
            }
        )
    )
    if not asked:
        return dg.SkipReason("There is no operations tenant to tell of what fails.")
    return dg.SkipReason(
        f"{sum(not one.ok for one in vitals)} of {len(vitals)} signs are not well, "
        f"{len(episodes)} subjects fail, {len(alerts)} alerts were asked for."
    )


def _runs(
    instance: dg.DagsterInstance, since: float, platform: PlatformResource
) -> tuple[list[Seen], float]:
    """Runs that ended since, oldest first, and from when to look next."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=_ENDED, updated_after=datetime.fromtimestamp(since, UTC)),
        limit=_MOST_RUNS,
        order_by="update_timestamp",
        ascending=True,
    )
    found = []
    for record in records:
        run = record.dagster_run
        ok = run.status is dg.DagsterRunStatus.SUCCESS
        link = f"{platform.settings().dagster_base_url}/runs/{run.run_id}"
        found.append(
            Seen(
                f"job:{run.job_name}",
                ok,
                record.update_timestamp.timestamp(),
                f"Run {link}",
                runbook_address(RUNS),
            )
        )
    last = max((record.update_timestamp.timestamp() for record in records), default=since)
    return found, last


def _checks(context: dg.SensorEvaluationContext, after: int) -> tuple[list[Seen], int]:
    """The latest result of each check that came since, and the newest one's id."""
    repository = context.repository_def
    keys = [] if repository is None else sorted(repository.asset_graph.asset_check_keys)
    latest = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    found, newest = [], after
    for key, record in latest.items():
        result = record.evaluation
        ended = (
            AssetCheckExecutionRecordStatus.SUCCEEDED,
            AssetCheckExecutionRecordStatus.FAILED,
        )
        # The sensor's own check is followed by what it sees itself.
        if record.id <= after or record.status not in ended or key == _OWN_CHECK:
            continue
        newest = max(newest, record.id)
        detail = (getattr(result, "description", None) or "")[:_DETAIL_LIMIT]
        ok = record.status is AssetCheckExecutionRecordStatus.SUCCEEDED
        page = runbook_address(key.name)
        found.append(Seen(f"check:{key.name}", ok, record.create_timestamp, detail, page))
    return found, newest


def _tell_vitals(
    instance: dg.DagsterInstance, metadata: Metadata, well: bool, description: str
) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(platform_health.key, metadata=metadata)
    )
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=platform_health.key,
            check_name=_OWN_CHECK.name,
            passed=well,
            description=description,
            metadata=metadata | runbook(_OWN_CHECK.name),
        )
    )


async def _ask(database: Database, slug: str, alerts: Sequence[Alert]) -> bool:
    """Ask for each alert once, in the operations tenant; False if there is none."""
    async with database.platform() as session:
        try:
            tenant = await get_tenant(session, slug)
        except NotFoundError:
            return False
    async with database.tenant(tenant.schema) as session:
        for one in alerts:
            # The same alert with another number of failures was asked for by a tick that was cut off.
            with contextlib.suppress(IdempotencyMismatchError):
                await request_directive(
                    session,
                    tenant,
                    ALERT,
                    {"subject": one.subject, "text": redact(one.text)},
                    idempotency_key=f"alert:{one.key}",
                    actor=Actor("operator", "platform"),
                    correlation_id=f"alert:{one.subject}",
                )
    await notify_directives(database)
    return True
