"""Where the lake's files are, and how one takes the place of another.

``<lake>/<table>/tenant=<slug>/day=<YYYY-MM-DD>/part.parquet``, hive-partitioned: one file for each
tenant and UTC day. Months that are long over are one file, ``month=<YYYY-MM>/part.parquet``, with a
column ``day``; a day that has a file of its own beside it is read from that one alone. Readers match
``*.parquet`` and so never see a file that is being written.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from fleetprompt.ids import new_id
from fleetprompt.lake.columns import Table
from fleetprompt.tenants.service import check_slug

FILE_NAME = "part.parquet"
_UNFINISHED = "*.unfinished"


def day_file(lake: Path, table: Table, slug: str, day: date) -> Path:
    """The file of one tenant and UTC day; the slug is checked, so no path leaves the lake."""
    folder = lake / table.name / f"tenant={check_slug(slug)}" / f"day={day.isoformat()}"
    return folder / FILE_NAME


def days_with_files(lake: Path, slug: str) -> list[date]:
    """The tenant's days of which any table has a file of its own, oldest first."""
    files = lake.glob(f"*/tenant={check_slug(slug)}/day=*/{FILE_NAME}")
    return sorted({date.fromisoformat(file.parent.name.removeprefix("day=")) for file in files})


def months_with_files(lake: Path, slug: str) -> list[date]:
    """The first days of the tenant's months that are one file, oldest first."""
    files = lake.glob(f"*/tenant={check_slug(slug)}/month=*/{FILE_NAME}")
    names = {file.parent.name.removeprefix("month=") for file in files}
    return sorted(date.fromisoformat(f"{name}-01") for name in names)


def tenant_files(lake: Path, slug: str) -> list[Path]:
    """Every finished file of the tenant, of all tables."""
    return sorted(lake.glob(f"*/tenant={check_slug(slug)}/*/{FILE_NAME}"))


def month_file(lake: Path, table: Table, slug: str, day: date) -> Path:
    """The file of the month that a day is in; the slug is checked."""
    folder = lake / table.name / f"tenant={check_slug(slug)}" / f"month={day:%Y-%m}"
    return folder / FILE_NAME


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``target`` when the block ends well.

    Readers see the old file or the new one, whole; after a power failure too, because the content
    is on disk before the name is. When the block raises, ``target`` is as it was. Whatever a killed
    writer left is cleared away, so one writer at a time may do this for one target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(_UNFINISHED):
        left.unlink(missing_ok=True)
    unfinished = target.with_name(f"{new_id().hex}.unfinished")
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.replace(target)
        _sync(target.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
