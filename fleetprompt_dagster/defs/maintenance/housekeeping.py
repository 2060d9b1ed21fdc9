"""The nightly job: retention of every tenant, what has expired, Dagster's own old events, table sizes."""

import dagster as dg

from fleetprompt.db.engine import Database
from fleetprompt.errors import FleetPromptError
from fleetprompt.lake.compaction import compact
from fleetprompt.lake.rebuild import describe
from fleetprompt.retention.expired import remove_expired
from fleetprompt.retention.pace import Pace
from fleetprompt.retention.service import RetentionReport, apply_retention
from fleetprompt.retention.sizes import table_sizes
from fleetprompt.tenants.service import Tenant, active_tenants
from fleetprompt_dagster.defs.maintenance.pruning import prune
from fleetprompt_dagster.metadata import Metadata, markdown_table
from fleetprompt_dagster.partitions import DAYS
from fleetprompt_dagster.resources import OpenPlatform, PlatformResource
from fleetprompt_dagster.runs import NOT_PROCESSED_LIMIT, run_tags

_SHOWN = 50
# It works at night and slowly, so that nobody notices; after six hours the next night goes on.
_LONGEST_SECONDS = 6 * 3600

retention = dg.AssetSpec(
    "retention",
    group_name="maintenance",
    kinds={"postgres", "parquet"},
    owners=["team:operators"],
    tags={"domain": "maintenance"},
    description=(
        "What was removed last night because its time was over, tenant by tenant. Told by the job "
        "`keep_house`; terms are shown and set with `fleetprompt retention`."
    ),
)
table_sizes_asset = dg.AssetSpec(
    "table_sizes",
    group_name="maintenance",
    kinds={"postgres"},
    owners=["team:operators"],
    tags={"domain": "maintenance"},
    description=(
        "How large PostgreSQL's tables are, those of all tenants summed up. Told by the job `keep_house`."
    ),
)


class KeepHouseConfig(dg.Config):
    """How slowly to work: a rest after each batch, in multiples of what the batch took."""

    rest: float = 3.0
    rows_a_batch: int = 500


@dg.op(out=dg.Out(dg.Nothing), tags={"domain": "maintenance"})
def apply_every_retention(
    context: dg.OpExecutionContext, config: KeepHouseConfig, platform: PlatformResource
) -> dg.Output[None]:
    """Remove what is due of every tenant. One that fails does not stop the others; told at the end."""
    reports: list[RetentionReport] = []
    failed: dict[str, str] = {}
    with platform.open() as opened:
        tenants = opened.run(_tenants(opened.database))
        for tenant in tenants:
            pace = Pace(rows=config.rows_a_batch, rest=config.rest)
            try:
                reports.append(opened.run(_one(opened, platform, tenant, pace)))
            except Exception as error:  # noqa: BLE001 - the other tenants' turn comes
                failed[tenant.slug] = describe(error)
                context.log.warning(f"{tenant.slug}: {failed[tenant.slug]}")
    found = _retention_metadata(reports, failed)
    context.log_event(dg.AssetMaterialization(retention.key, metadata=found))
    if len(failed) > NOT_PROCESSED_LIMIT * len(tenants):
        raise dg.Failure(
            f"{len(failed)} of {len(tenants)} tenants were not processed; see 'failures' for why. What is "
            "due stays due: run `keep_house` again once the cause is gone.",
            metadata=found,
            allow_retries=False,
        )
    return dg.Output(None, metadata=found)


async def _tenants(database: Database) -> list[Tenant]:
    async with database.platform() as session:
        return await active_tenants(session)


async def _one(
    opened: OpenPlatform, platform: PlatformResource, tenant: Tenant, pace: Pace
) -> RetentionReport:
    return await apply_retention(opened.database, opened.settings, tenant, platform.now(), pace)


def _retention_metadata(reports: list[RetentionReport], failed: dict[str, str]) -> Metadata:
    kinds = ("signals", "lake_days", "executions", "directives", "conversations")
    busy = [one for one in reports if any(getattr(one, kind) for kind in kinds)]
    busy.sort(key=lambda one: -one.signals)
    waiting = [(one.tenant, len(one.days_not_in_lake)) for one in reports if one.days_not_in_lake]
    found: Metadata = {
        kind: dg.MetadataValue.int(sum(getattr(one, kind) for one in reports)) for kind in kinds
    }
    return found | {
        "tenants": dg.MetadataValue.int(len(reports)),
        "not_processed": dg.MetadataValue.int(len(failed)),
        "days_not_in_lake": dg.MetadataValue.int(sum(days for _, days in waiting)),
        "by_tenant": dg.MetadataValue.md(
            markdown_table(
                ["tenant", *kinds],
                [(one.tenant, *(getattr(one, kind) for kind in kinds)) for one in busy[:_SHOWN]],
            )
        ),
        "failures": dg.MetadataValue.md(
            markdown_table(["tenant", "why"], list(failed.items())[:_SHOWN]) if failed else "none"
        ),
    }


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), tags={"domain": "maintenance"})
def compact_lake(context: dg.OpExecutionContext, platform: PlatformResource) -> dg.Output[None]:
    """Turn the day files of months that are long over into one file a month."""
    files = 0
    today = platform.now().date()
    with platform.open() as opened:
        for tenant in opened.run(_tenants(opened.database)):
            try:
                files += opened.run(compact(opened.database, opened.settings.lake, tenant, today))
            except (OSError, FleetPromptError) as error:
                context.log.warning(f"{tenant.slug}: {describe(error)}")
    return dg.Output(None, metadata={"day_files": dg.MetadataValue.int(files)})


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), tags={"domain": "maintenance"})
def remove_what_expired(
    context: dg.OpExecutionContext, platform: PlatformResource
) -> dg.Output[None]:
    """Delete sessions, links, codes, keys, workers and slots that are of no use any more."""
    removed = platform.run(lambda database: remove_expired(database, platform.now(), Pace()))
    return dg.Output(
        None, metadata={name: dg.MetadataValue.int(rows) for name, rows in removed.items()}
    )


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), tags={"domain": "maintenance"})
def prune_dagster(context: dg.OpExecutionContext, platform: PlatformResource) -> dg.Output[None]:
    """Delete Dagster's own events and runs that nobody looks at any more."""
    pruned = prune(context.instance, platform.now(), grid_days=DAYS)
    return dg.Output(
        None,
        metadata={
            "events": dg.MetadataValue.int(pruned.events),
            "replaced_materializations": dg.MetadataValue.int(pruned.replaced),
            "runs": dg.MetadataValue.int(pruned.runs),
        },
    )


@dg.op(ins={"after": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing), tags={"domain": "maintenance"})
def measure_tables(context: dg.OpExecutionContext, platform: PlatformResource) -> dg.Output[None]:
    """Tell how large the tables are."""
    sizes = platform.run(table_sizes)
    found: Metadata = {
        "bytes": dg.MetadataValue.int(sum(one.bytes for one in sizes)),
        "tables": dg.MetadataValue.int(sum(one.tables for one in sizes)),
        "largest": dg.MetadataValue.md(
            markdown_table(
                ["of", "table", "how many", "rows, estimated", "MiB"],
                [
                    (one.kept_in, one.name, one.tables, one.rows, round(one.bytes / 2**20, 1))
                    for one in sizes[:_SHOWN]
                ],
            )
        ),
    }
    context.log_event(dg.AssetMaterialization(table_sizes_asset.key, metadata=found))
    return dg.Output(None, metadata=found)


@dg.job(
    tags=run_tags("nightly upkeep", priority=-2, longest_seconds=_LONGEST_SECONDS),
    description=(
        "Removes what is due: tenants' signals, files, executions and content by their terms, what has "
        "expired, and Dagster's own old events. Slowly, and safe to stop and to repeat."
    ),
)
def keep_house() -> None:
    """Retention first, then what follows from it."""
    measure_tables(prune_dagster(remove_what_expired(compact_lake(apply_every_retention()))))


keep_house_nightly = dg.ScheduleDefinition(
    name="keep_house_nightly",
    job=keep_house,
    cron_schedule="23 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Retention and upkeep, at 02:23 UTC.",
)
