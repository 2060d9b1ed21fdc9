"""Telling the grids of partitions: the events of many in one write.

An event that an op yields is stored by itself, in three connections that are opened for it: 5 to 16 ms.
Dagster stores those of an asset that is written for many partitions together; here an op does the same
with the release's own means, as far as ``DAGSTER_EVENT_BATCH_SIZE`` allows.

Where partitions are dates alone, the tenants' days of a date become one event with a row for each.
"""

from collections.abc import Iterable, Mapping

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata

from fleetprompt.ids import new_id
from fleetprompt_dagster.metadata import Metadata, markdown_table
from fleetprompt_dagster.partitions import BY_TENANT, cell_of, tenant_day

AssetEvent = dg.AssetMaterialization | dg.AssetObservation
# Rows of a date's table; a row takes some 100 bytes of each event.
_MOST_ROWS = 500
_LONGEST_TEXT = 60


def tell_grid(context: dg.OpExecutionContext, events: Iterable[AssetEvent]) -> None:
    """Store the events of tenants' days as the step's own; when it returns they are in Dagster's log.

    Events of one asset and kind keep their order; each asset's page shows the last one.
    """
    alike: dict[tuple[type[AssetEvent], dg.AssetKey], list[AssetEvent]] = {}
    for event in events if BY_TENANT else dates_together(events):
        alike.setdefault((type(event), event.asset_key), []).append(event)
    step = context.get_step_execution_context()
    for together in alike.values():
        batch_id = str(new_id())
        for number, event in enumerate(together, start=1):
            batch = DagsterEventBatchMetadata(batch_id, number == len(together))
            if isinstance(event, dg.AssetMaterialization):
                DagsterEvent.asset_materialization(step, event, batch)
            else:
                DagsterEvent.asset_observation(step, event, batch)


def dates_together(events: Iterable[AssetEvent]) -> list[AssetEvent]:
    """One event for each kind, asset and date of these tenants' days, the tenants as rows."""
    found: dict[tuple[type[AssetEvent], dg.AssetKey, str], dict[str, Metadata]] = {}
    for event in events:
        key = event.partition or ""
        tenants = found.setdefault((type(event), event.asset_key, cell_of(key)), {})
        tenants[tenant_day(key)[0]] = dict(event.metadata)
    return [
        kind(asset, partition=day, metadata=date_metadata(tenants))
        for (kind, asset, day), tenants in found.items()
    ]


def date_metadata(tenants: Mapping[str, Metadata]) -> Metadata:
    """Of a date: sums of the tenants' counts, what they have in common, and a row for each tenant.

    It tells of those tenants that were written together, which is not always all of them.
    """
    columns = {
        name: None for own in tenants.values() for name, value in own.items() if _is_short(value)
    }
    found: Metadata = {"tenants": dg.MetadataValue.int(len(tenants))}
    for name in list(columns):
        values = [own.get(name) for own in tenants.values()]
        whole = [one.value for one in values if isinstance(one, dg.IntMetadataValue)]
        if len(whole) == sum(one is not None for one in values):
            # Not the asset's row count, which would be taken for that of the whole date.
            shown = name.removeprefix("dagster/")
            found[shown] = dg.MetadataValue.int(sum(one or 0 for one in whole))
        elif len(tenants) > 1 and values[0] is not None and values.count(values[0]) == len(values):
            found[name] = values[0]
            del columns[name]
    rows = [
        (tenant, *("" if name not in own else _told(own[name]) for name in columns))
        for tenant, own in sorted(tenants.items())
    ]
    heads = ["tenant", *(name.removeprefix("dagster/") for name in columns)]
    table = markdown_table(heads, rows[:_MOST_ROWS])
    more = len(rows) - _MOST_ROWS
    found["by_tenant"] = dg.MetadataValue.md(f"{table}\n\nand {more} more" if more > 0 else table)
    return found


def _is_short(value: dg.MetadataValue) -> bool:
    if isinstance(value, dg.TextMetadataValue):
        return len(value.text or "") <= _LONGEST_TEXT
    return isinstance(
        value,
        dg.IntMetadataValue | dg.FloatMetadataValue | dg.UrlMetadataValue,
    )


def _told(value: dg.MetadataValue) -> str:
    return str(value.value)
