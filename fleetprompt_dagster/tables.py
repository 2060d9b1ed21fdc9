"""Assets that are tables of the lake: one file for each tenant and UTC day."""

from collections.abc import Callable, Iterable
from typing import Any

import dagster as dg

from fleetprompt.lake.columns import Table
from fleetprompt_dagster.metadata import column_schema
from fleetprompt_dagster.partitions import BY_TENANT, utc_days

# A backfill of any size is few runs; one for each tenant and day would take hours. A date of very many
# tenants takes minutes.
_BACKFILL = (
    dg.BackfillPolicy.single_run()
    if BY_TENANT
    else dg.BackfillPolicy.multi_run(max_partitions_per_run=5)
)


def table_asset(
    table: Table,
    *,
    domain: str,
    kinds: set[str],
    description: str,
    deps: Iterable[dg.AssetsDefinition | dg.AssetSpec] = (),
    name: str | None = None,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Decorator of the function that writes the table's files of the run's partitions.

    The asset has the table's name unless another is given.
    """
    return dg.asset(
        name=name or table.name,
        partitions_def=utc_days,
        backfill_policy=_BACKFILL,
        deps=list(deps),
        group_name=domain,
        kinds=kinds,
        owners=["team:operators"],
        tags={"domain": domain},
        metadata={
            "dagster/column_schema": column_schema(table),
            "dagster/table_name": table.name,
        },
        description=f"{table.description} {description}",
    )
