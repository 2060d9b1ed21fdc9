"""Events of many partitions in one write."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage

from fleetprompt_dagster.grid import AssetEvent, tell_grid

DIGEST, OTHER = dg.AssetKey("daily_digest"), dg.AssetKey("signals")
TOLD: list[AssetEvent] = [
    dg.AssetMaterialization(DIGEST, partition="2026-03-08|acme", metadata={"lines": 3}),
    dg.AssetMaterialization(OTHER, partition="2026-03-08|acme"),
    dg.AssetObservation(DIGEST, partition="2026-03-08|harbor", metadata={"state": "failed"}),
    dg.AssetMaterialization(DIGEST, partition="2026-03-08|north", metadata={"lines": 4}),
]


@dg.op(out=dg.Out(dg.Nothing))
def tell_all(context: dg.OpExecutionContext) -> None:
    tell_grid(context, TOLD)
    tell_grid(context, [])


@dg.job
def telling() -> None:
    tell_all()


def test_events_of_one_asset_and_kind_are_one_write_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[list[str | None]] = []
    store = SqliteEventLogStorage.store_event_batch

    def noted(self: SqliteEventLogStorage, events: Sequence[dg.EventLogEntry]) -> Any:
        written.append([event.get_dagster_event().partition for event in events])
        return store(self, events)

    monkeypatch.setattr(SqliteEventLogStorage, "store_event_batch", noted)
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "200")
    with dg.instance_for_test() as instance:
        result = telling.execute_in_process(instance=instance)
        assert result.success
        assert written == [["2026-03-08|acme", "2026-03-08|north"]]
        assert instance.get_materialized_partitions(DIGEST) == {
            "2026-03-08|acme",
            "2026-03-08|north",
        }
        assert instance.get_materialized_partitions(OTHER) == {"2026-03-08|acme"}
        latest = instance.get_latest_materialization_event(DIGEST)
        assert latest is not None
        assert latest.run_id == result.run_id
        assert latest.asset_materialization is not None
        assert latest.asset_materialization.metadata["lines"].value == 4
        [observed] = instance.fetch_observations(DIGEST, limit=5).records
        assert observed.partition_key == "2026-03-08|harbor"
