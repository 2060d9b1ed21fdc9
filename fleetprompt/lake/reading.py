"""Reading a tenant's UTC day from the lake's files, in batches of bounded size."""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

from fleetprompt.lake.columns import SIGNALS, Table
from fleetprompt.lake.layout import day_file, month_file, parquet_file
from fleetprompt.lake.places import LakePath

if TYPE_CHECKING:
    import pyarrow as pa

DAY_COLUMN = "day"


def day_rows(
    lake: LakePath,
    table: Table,
    slug: str,
    day: date,
    *,
    rows: int,
    columns: Sequence[str] | None = None,
) -> Iterator["pa.RecordBatch"]:
    """The day's rows in their order, at most ``rows`` at once; FileNotFoundError if there are none.

    From the day's own file or, once months are one file, from the month's.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(parquet_file(day_file(lake, table, slug, day)))
        except FileNotFoundError:
            yield from _of_month(lake, table, slug, day, rows=rows, columns=columns)
        else:
            yield from file.iter_batches(rows, columns=columns)


def _of_month(
    lake: LakePath, table: Table, slug: str, day: date, *, rows: int, columns: Sequence[str] | None
) -> Iterator["pa.RecordBatch"]:
    import pyarrow.compute as pc

    wanted = None if columns is None else [*columns, DAY_COLUMN]
    found = False
    with parquet_file(month_file(lake, table, slug, day)) as file:
        for group in _groups_of(file, day):
            for batch in file.iter_batches(rows, row_groups=[group], columns=wanted):
                own = batch.filter(pc.field(DAY_COLUMN) == day)
                if own.num_rows:
                    found = True
                    yield own.drop_columns([DAY_COLUMN])
    if not found:
        raise FileNotFoundError(day_file(lake, table, slug, day))


def _groups_of(file: "pa.parquet.ParquetFile", day: date) -> list[int]:
    """Row groups that may hold the day, by their statistics."""
    place = file.schema_arrow.get_field_index(DAY_COLUMN)
    found = []
    for number in range(file.metadata.num_row_groups):
        bounds = file.metadata.row_group(number).column(place).statistics
        if bounds is None or not bounds.has_min_max or bounds.min <= day <= bounds.max:
            found.append(number)
    return found


def rows_in_day(lake: LakePath, table: Table, slug: str, day: date) -> int | None:
    """How many rows the lake has of the day; None if it has none and no file of its own."""
    try:
        with parquet_file(day_file(lake, table, slug, day)) as file:
            return int(file.metadata.num_rows)
    except FileNotFoundError:
        try:
            batches = day_rows(lake, table, slug, day, rows=65_536, columns=[])
            return sum(int(batch.num_rows) for batch in batches)
        except FileNotFoundError:
            return None


def signal_ids(
    lake: LakePath, slug: str, day: date, *, rows: int, stored_before: datetime
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
