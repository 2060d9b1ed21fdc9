"""Where the lake's files are, and how one takes the place of another.

``<lake>/<table>/tenant=<slug>/day=<YYYY-MM-DD>/part.parquet``, hive-partitioned: one file for each
tenant and UTC day. Months that are long over are one file, ``month=<YYYY-MM>/part.parquet``, with a
column ``day``; a day that has a file of its own beside it is read from that one alone. Readers match
``*.parquet`` and so never see a file that is being written. In object storage the names are the same.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fleetprompt.ids import new_id
from fleetprompt.lake.columns import Table
from fleetprompt.lake.objects import ObjectPath
from fleetprompt.lake.places import LakePath
from fleetprompt.tenants.service import check_slug

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Lake = TypeVar("Lake", bound=LakePath)

FILE_NAME = "part.parquet"
_UNFINISHED = "*.unfinished"


def day_file(lake: Lake, table: Table, slug: str, day: date) -> Lake:
    """The file of one tenant and UTC day; the slug is checked, so no path leaves the lake."""
    return _file(lake, table, slug, f"day={day.isoformat()}")


def days_with_files(lake: LakePath, slug: str) -> list[date]:
    """The tenant's days of which any table has a file of its own, oldest first."""
    files = lake.glob(f"*/tenant={check_slug(slug)}/day=*/{FILE_NAME}")
    return sorted({date.fromisoformat(file.parent.name.removeprefix("day=")) for file in files})


def months_with_files(lake: LakePath, slug: str) -> list[date]:
    """The first days of the tenant's months that are one file, oldest first."""
    files = lake.glob(f"*/tenant={check_slug(slug)}/month=*/{FILE_NAME}")
    names = {file.parent.name.removeprefix("month=") for file in files}
    return sorted(date.fromisoformat(f"{name}-01") for name in names)


def tenant_files(lake: LakePath, slug: str) -> list[LakePath]:
    """Every finished file of the tenant, of all tables."""
    return sorted(lake.glob(f"*/tenant={check_slug(slug)}/*/{FILE_NAME}"), key=str)


def remove_tenant_files(lake: LakePath, slug: str) -> None:
    """Delete everything of the tenant, of all tables."""
    if isinstance(lake, Path):
        for folder in lake.glob(f"*/tenant={check_slug(slug)}"):
            shutil.rmtree(folder)
    else:
        for file in tenant_files(lake, slug):
            remove_file(file)


def remove_file(file: LakePath) -> None:
    """Delete a day's or month's file with its folder, if it is there."""
    if isinstance(file, Path):
        shutil.rmtree(file.parent, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            file.unlink()


def month_file(lake: Lake, table: Table, slug: str, day: date) -> Lake:
    """The file of the month that a day is in; the slug is checked."""
    return _file(lake, table, slug, f"month={day:%Y-%m}")


def _file(lake: Lake, table: Table, slug: str, folder: str) -> Lake:
    path: Any = lake
    return cast(Lake, path / table.name / f"tenant={check_slug(slug)}" / folder / FILE_NAME)


@contextmanager
def replacing(target: LakePath) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``target`` when the block ends well.

    Readers see the old file or the new one, whole; after a power failure too, because the content
    is on disk before the name is, or the store says that it has it. When the block raises, ``target``
    is as it was. Whatever a killed writer left is cleared away, so one writer at a time may do this for
    one target.
    """
    if isinstance(target, ObjectPath):
        with tempfile.TemporaryDirectory(prefix="fleetprompt-lake-") as folder:
            unfinished = Path(folder) / target.name
            yield unfinished
            target.put(unfinished)
        return
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


@contextmanager
def parquet_file(path: LakePath) -> Iterator["pq.ParquetFile"]:
    """The file, open for reading; FileNotFoundError if there is none."""
    import pyarrow.parquet as pq

    with path.open("rb") as source, pq.ParquetFile(source) as file:
        yield file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
