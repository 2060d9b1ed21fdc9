"""Reading a tenant's UTC day from the lake's files, in batches of bounded size."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fleetprompt.lake.columns import SIGNALS, Table
from fleetprompt.lake.layout import day_file

if TYPE_CHECKING:
    import pyarrow as pa


def day_rows(
    lake: Path,
    table: Table,
    slug: str,
    day: date,
    *,
    rows: int,
    columns: Sequence[str] | None = None,
) -> Iterator["pa.RecordBatch"]:
    """The day's rows in their order, at most ``rows`` at once; FileNotFoundError if there is no file."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(day_file(lake, table, slug, day)) as file:
        yield from file.iter_batches(rows, columns=columns)


def signal_ids(
    lake: Path, slug: str, day: date, *, rows: int, stored_before: datetime
) -> Iterator[list[str]]:
    """The ids of the day's signals that were stored before a time; nothing if there is no file."""
    import pyarrow.compute as pc

    try:
        for batch in day_rows(lake, SIGNALS, slug, day, rows=rows, columns=["id", "inserted_at"]):
            old = batch.filter(pc.field("inserted_at") < stored_before)
            if old.num_rows:
                yield old["id"].to_pylist()
    except FileNotFoundError:
        return
