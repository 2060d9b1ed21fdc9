"""The answer to a question about one tenant, as a file that others read."""

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

from fleetprompt.errors import InvalidError
from fleetprompt.ids import new_id
from fleetprompt.lake.places import LakePath
from fleetprompt.lake.views import open_lake

_ROWS = 65_536
FORMATS: tuple[str, ...] = (".csv", ".parquet", ".jsonl")


def export(lake: LakePath | str, tenant: str, query: str, target: Path) -> int:
    """Write what the query answers about this tenant alone; how many rows.

    The form follows from the name: CSV with a header, Parquet, or JSON lines. ``target`` appears when it
    is whole, readable by its owner alone. InvalidError for another name; duckdb.Error for a query that
    is wrong or reaches for what is not this tenant's.
    """
    if target.suffix not in FORMATS:
        raise InvalidError(f"Name a file that ends in one of: {', '.join(FORMATS)}.")
    unfinished = target.with_name(f".{new_id().hex}{target.suffix}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    try:
        with open_lake(lake, tenant=tenant, locked=True) as connection:
            rows = _write(connection.sql(query).to_arrow_reader(_ROWS), unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _write(reader: Any, target: Path) -> int:
    """Batch by batch, so that memory does not grow with the answer."""
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    rows = 0
    if target.suffix == ".jsonl":
        with target.open("w", encoding="utf-8") as file:
            for batch in reader:
                for row in batch.to_pylist():
                    file.write(json.dumps(row, default=_text, ensure_ascii=False) + "\n")
                rows += batch.num_rows
        return rows
    make = pa_csv.CSVWriter if target.suffix == ".csv" else pq.ParquetWriter
    with make(target, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _text(value: object) -> str:
    """Times and dates as ISO 8601, everything else as Python writes it."""
    return value.isoformat() if isinstance(value, date) else str(value)
