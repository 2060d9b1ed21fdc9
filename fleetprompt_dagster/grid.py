"""Telling the grids of partitions: the events of many in one write.

An event that an op yields is stored by itself, in three connections that are opened for it: 5 to 16 ms.
Dagster stores those of an asset that is written for many partitions together; here an op does the same
with the release's own means, as far as ``DAGSTER_EVENT_BATCH_SIZE`` allows.
"""

from collections.abc import Iterable

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventBatchMetadata

from fleetprompt.ids import new_id

AssetEvent = dg.AssetMaterialization | dg.AssetObservation


def tell_grid(context: dg.OpExecutionContext, events: Iterable[AssetEvent]) -> None:
    """Store the events as the step's own; when it returns they are in Dagster's log.

    Events of one asset and kind keep their order; each asset's page shows the last one.
    """
    alike: dict[tuple[type[AssetEvent], dg.AssetKey], list[AssetEvent]] = {}
    for event in events:
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
