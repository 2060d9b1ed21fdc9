"""Counting a day's signals from its file."""

from datetime import date

from fleetprompt.lake.columns import DAILY_COUNTS, SIGNALS, parquet_options, parquet_schema
from fleetprompt.lake.layout import day_file, parquet_file, replacing
from fleetprompt.lake.places import LakePath


def write_counts(
    lake: LakePath, slug: str, day: date
) -> tuple[LakePath, int, tuple[tuple[str, str, int], ...]]:
    """Write one row for each type and source, the most frequent first.

    Returns the file, how many rows it has, and ``(type, source, signals)`` of each. Reads three
    narrow columns of the signals, not their content.
    """
    import pyarrow.parquet as pq

    with parquet_file(day_file(lake, SIGNALS, slug, day)) as file:
        signals = file.read(columns=["type", "source", "occurred_at"])
    counted = (
        signals.group_by(["type", "source"])
        .aggregate([([], "count_all"), ("occurred_at", "min"), ("occurred_at", "max")])
        .rename_columns(
            {
                "count_all": "signals",
                "occurred_at_min": "first_occurred_at",
                "occurred_at_max": "last_occurred_at",
            }
        )
        .sort_by([("signals", "descending"), ("type", "ascending"), ("source", "ascending")])
    )
    schema = parquet_schema(DAILY_COUNTS)
    target = day_file(lake, DAILY_COUNTS, slug, day)
    with replacing(target) as unfinished:
        pq.write_table(
            counted.select(schema.names).cast(schema),
            unfinished,
            **parquet_options(DAILY_COUNTS, schema),
        )
    rows = zip(
        counted["type"].to_pylist(),
        counted["source"].to_pylist(),
        counted["signals"].to_pylist(),
        strict=True,
    )
    return target, counted.num_rows, tuple(rows)
