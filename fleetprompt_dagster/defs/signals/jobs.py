"""Writing days that have changed again: many tenants' days in one run."""

from datetime import date

import dagster as dg

from fleetprompt.lake.rebuild import RebuiltDay, rebuild_days
from fleetprompt.lake.stale import forget_marks
from fleetprompt_dagster.defs.conversations.metadata import conversations_metadata
from fleetprompt_dagster.defs.signals.assets import daily_counts, signals
from fleetprompt_dagster.grid import tell_grid
from fleetprompt_dagster.metadata import counts_metadata, markdown_table, signals_metadata
from fleetprompt_dagster.partitions import partition_key
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runs import NOT_PROCESSED_LIMIT, QUIET, run_tags

# Days between two lots of events. What a killed run had not told is done again, at most so many.
_AT_ONCE = 50


class TenantDay(dg.Config):
    """A tenant's slug and a UTC day as ``YYYY-MM-DD``."""

    tenant: str
    day: str


class RebuildConfig(dg.Config):
    """Which tenants' days to write."""

    days: list[TenantDay]


@dg.op(out=dg.Out(dg.Nothing), tags={"domain": "signals"})
def rebuild_tenant_days(
    context: dg.OpExecutionContext, config: RebuildConfig, platform: PlatformResource
) -> dg.Output[None]:
    """Write each tenant's day, tell the grid, and only then forget the marks that asked for it.

    A run that is killed leaves marks, so its days are asked for again. One tenant's failure does not
    stop the others; its marks stay. The run fails if more than 10 % were not processed.
    """
    wanted = [(each.tenant, date.fromisoformat(each.day)) for each in config.days]
    failed: list[RebuiltDay] = []
    rows = late = 0
    with platform.open() as opened:
        for start in range(0, len(wanted), _AT_ONCE):
            lot = wanted[start : start + _AT_ONCE]
            rebuilt = opened.run(rebuild_days(opened.database, opened.settings.lake, lot))
            done: list[int] = []
            events: list[dg.AssetMaterialization] = []
            for each in rebuilt:
                if each.signals is None or each.counts is None:
                    context.log.warning(f"{each.tenant} {each.day}: {each.error}")
                    failed.append(each)
                    continue
                key = partition_key(each.day, each.tenant)
                for asset, metadata in (
                    (signals.key, signals_metadata(each.signals)),
                    (daily_counts.key, counts_metadata(each.counts)),
                ):
                    events.append(dg.AssetMaterialization(asset, partition=key, metadata=metadata))
                if each.conversations is not None:
                    told = conversations_metadata(each.conversations)
                    events.append(
                        dg.AssetMaterialization("conversations", partition=key, metadata=told)
                    )
                done.extend(each.marks)
                rows += each.signals.rows
                late += each.signals.late_rows
            tell_grid(context, events)
            opened.run(forget_marks(opened.database, done))
    summary = {
        "days": dg.MetadataValue.int(len(wanted)),
        "not_processed": dg.MetadataValue.int(len(failed)),
        "rows": dg.MetadataValue.int(rows),
        "late_rows": dg.MetadataValue.int(late),
        "failures": dg.MetadataValue.md(
            markdown_table(
                ["tenant", "day", "why"], [(one.tenant, one.day, one.error) for one in failed[:20]]
            )
            if failed
            else "none"
        ),
    }
    if len(failed) > NOT_PROCESSED_LIMIT * len(wanted):
        raise dg.Failure(
            f"{len(failed)} of {len(wanted)} days were not written. Their marks stay, and they are "
            "asked for again, less and less often; see 'failures' for why.",
            metadata=summary,
            allow_retries=False,
        )
    return dg.Output(None, metadata=summary)


@dg.job(
    tags={**run_tags("write changed days", priority=0, longest_seconds=1800), **QUIET},
    description=(
        "Writes tenants' days whose signals have changed since they were written. Started by the sensor "
        "`stale_days`; may be run from the launchpad for any list of tenants and days."
    ),
)
def rebuild_stale_days() -> None:
    """Signals, then counts, of each tenant's day in the config."""
    rebuild_tenant_days()
