"""Tenants' UTC days as files of the lake."""

from collections.abc import Callable, Coroutine
from datetime import date
from typing import Any, TypeVar

import dagster as dg

from fleetprompt.db.engine import Database
from fleetprompt.lake.columns import DAILY_COUNTS, SIGNALS
from fleetprompt.lake.days import write_daily_counts, write_signals
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.rebuild import describe
from fleetprompt.tenants.service import Tenant, active_tenants, get_tenant
from fleetprompt_dagster.grid import date_metadata
from fleetprompt_dagster.metadata import Metadata, counts_metadata, signals_metadata
from fleetprompt_dagster.partitions import BY_TENANT, partition_key, tenant_day
from fleetprompt_dagster.resources import PlatformResource
from fleetprompt_dagster.runs import NOT_PROCESSED_LIMIT
from fleetprompt_dagster.tables import table_asset

# Where the checks hang: Dagster calls a check's result outdated as soon as its asset is materialised
# again, which days of `signals` are all the time.
signal_store = dg.AssetSpec(
    "signal_store",
    group_name="signals",
    kinds={"postgres"},
    owners=["team:operators"],
    tags={"domain": "signals"},
    description="All tenants' signals in PostgreSQL, which is the truth. Written by the API alone.",
)

Report = TypeVar("Report")
Write = Callable[[Database, LakePath, Tenant, date], Coroutine[Any, Any, Report]]


@table_asset(
    SIGNALS,
    domain="signals",
    kinds={"postgres", "parquet"},
    deps=[signal_store],
    description=(
        "From PostgreSQL into one Parquet file. Days that change are written again by themselves "
        "(`rebuild_stale_days`); materialise one by hand to have it now."
    ),
)
def signals(context: dg.AssetExecutionContext, platform: PlatformResource) -> None:
    """Write the signals of the run's partitions."""
    materialize_days(context, platform, write_signals, signals_metadata)


@table_asset(
    DAILY_COUNTS,
    domain="signals",
    kinds={"parquet"},
    deps=[signals],
    description="Counted from the day's file of signals, so that both always agree.",
)
def daily_counts(context: dg.AssetExecutionContext, platform: PlatformResource) -> None:
    """Count the signals of the run's partitions."""
    materialize_days(context, platform, write_daily_counts, counts_metadata)


def materialize_days(
    context: dg.AssetExecutionContext,
    platform: PlatformResource,
    write: Write[Report],
    metadata: Callable[[Report], Metadata],
) -> None:
    """Write each partition of the run, each with its own metadata; the run fails if any did.

    A date holds all tenants' days: there it fails if more than 10 % were not written.
    """
    tried = 0
    failed: dict[str, str] = {}
    with platform.open() as opened:
        for cell in context.partition_keys:
            written: dict[str, Metadata] = {}
            keys = [cell] if BY_TENANT else opened.run(_keys_of(opened.database, cell))
            for key in keys:
                slug, day = tenant_day(key)
                try:
                    tenant = opened.run(_tenant(opened.database, slug))
                    report = opened.run(write(opened.database, opened.settings.lake, tenant, day))
                except Exception as error:  # noqa: BLE001 - the other partitions are still written
                    failed[key] = describe(error)
                else:
                    written[slug] = metadata(report)
            tried += len(keys)
            told = date_metadata(written) if not BY_TENANT else written.get(tenant_day(cell)[0])
            if told is not None:
                context.add_asset_metadata(told, partition_key=cell)
    if len(failed) > (0 if BY_TENANT else NOT_PROCESSED_LIMIT * tried):
        raise dg.Failure(
            f"{len(failed)} of {tried} tenants' days were not written: {_sample(failed)}. "
            "The others were; run these again once the cause is gone.",
            metadata={"failed": len(failed)},
            allow_retries=False,
        )
    if failed:
        context.log.warning(f"{len(failed)} of {tried} were not written: {_sample(failed)}")


def _sample(failed: dict[str, str]) -> str:
    return "; ".join(f"{key}: {reason}" for key, reason in list(failed.items())[:20])


async def _keys_of(database: Database, day: str) -> list[str]:
    async with database.platform() as session:
        tenants = await active_tenants(session)
    return [str(partition_key(date.fromisoformat(day), tenant.slug)) for tenant in tenants]


async def _tenant(database: Database, slug: str) -> Tenant:
    async with database.platform() as session:
        return await get_tenant(session, slug)
