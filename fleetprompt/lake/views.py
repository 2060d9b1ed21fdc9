"""The lake as DuckDB views: one for each table, and the questions that people ask most."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetprompt.lake.columns import TABLES, Kind, Table
from fleetprompt.lake.layout import FILE_NAME
from fleetprompt.lake.objects import ObjectPath
from fleetprompt.lake.places import LakePath, place_of
from fleetprompt.lake.questions import QUESTIONS
from fleetprompt.tenants.service import check_slug

if TYPE_CHECKING:
    import duckdb
    from fsspec import AbstractFileSystem  # type: ignore[import-untyped]

SQL_KINDS: dict[Kind, str] = {
    "string": "VARCHAR",
    "timestamp": "TIMESTAMPTZ",
    "bigint": "BIGINT",
    "double": "DOUBLE",
}


def open_lake(
    lake: LakePath | str, *, tenant: str | None = None, locked: bool = False
) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB with the lake's views; times are shown in UTC.

    ``lake`` is a folder, or an address such as ``s3://bucket/lake`` for object storage (credentials from
    the environment). Each table's view has its columns and then ``tenant`` and ``day``. With ``tenant`` the
    views read that tenant's files alone; with ``locked`` too nothing else can be read through the
    connection: no other file, no extension, no other setting. A table without files is an empty view.
    """
    import duckdb

    place = place_of(lake)
    whose = check_slug(tenant) if tenant else "*"
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET parquet_metadata_cache = true")
    served = locked or isinstance(place, ObjectPath)
    if served:
        connection.register_filesystem(_served(place, whose))
    if not isinstance(place, ObjectPath):
        # The machine keeps what was read of its own files: keeping it twice, or having other threads read
        # it ahead, takes time.
        connection.execute("SET enable_external_file_cache = false")
        connection.execute("SET async_threads = 0")
    root = _address_of(place) if served else str(place)
    known_first = tenant is not None and not isinstance(place, ObjectPath)
    for table in TABLES:
        patterns = {
            folder: f"{table.name}/tenant={whose}/{folder}=*/{FILE_NAME}"
            for folder in ("day", "month")
        }
        parts = [
            _part(connection, table, f"{root}/{pattern}", folder, known_first=known_first)
            for folder, pattern in patterns.items()
            if any(True for _ in place.glob(pattern))
        ]
        connection.execute(f'CREATE VIEW "{table.name}" AS {_query(table, parts)}')
    for question in QUESTIONS:
        connection.execute(f'CREATE VIEW "{question.name}" AS {question.sql}')
    if locked:
        _lock(connection, root, whose)
    return connection


def _served(lake: LakePath, whose: str) -> "AbstractFileSystem":
    from fleetprompt.lake.served import ServedLake

    if whose == "*":
        return ServedLake(*(lake / table.name for table in TABLES))
    return ServedLake(*(lake / table.name / f"tenant={whose}" for table in TABLES))


def _address_of(lake: LakePath) -> str:
    from fleetprompt.lake.served import address_of

    return address_of(lake)


def _lock(connection: "duckdb.DuckDBPyConnection", root: str, whose: str) -> None:
    folders = ", ".join(_quoted(f"{root}/{table.name}/tenant={whose}/") for table in TABLES)
    connection.execute(f"SET allowed_directories = [{folders}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


@dataclass(frozen=True, slots=True)
class _Part:
    """The table's files of one kind of folder.

    ``uniform`` if all have the columns of this version. With ``known_first`` DuckDB looks at every file's
    end before it plans, and leaves out comparisons that hold for every row, such as a month's bounds: some
    milliseconds for a third of a large month's time. Where files are many or far away it costs more.
    """

    folder: str
    files: str
    uniform: bool
    known_first: bool


def _part(
    connection: "duckdb.DuckDBPyConnection",
    table: Table,
    files: str,
    folder: str,
    *,
    known_first: bool,
) -> _Part:
    # Asked once here: having every query look at every file's columns would cost more than the query.
    names = ", ".join(_quoted(column.name) for column in table.columns)
    [(lacking,)] = connection.execute(
        "SELECT count(*) FROM (SELECT file_name, count(*) AS known"  # noqa: S608
        f" FROM parquet_schema({_quoted(files)}) WHERE name IN ({names}) GROUP BY file_name)"
        f" WHERE known < {len(table.columns)}"
    ).fetchall()
    return _Part(folder, files, lacking == 0, known_first)


def _query(table: Table, parts: Sequence[_Part]) -> str:
    """The text is made from this package's own table names and the operator's own folder."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    queries = [
        _read(part, next((p.files for p in parts if p.folder == "day"), None)) for part in parts
    ]
    if not all(part.uniform for part in parts) or not parts:
        # Columns that no file has are null.
        nothing = ", ".join(
            f'NULL::{SQL_KINDS[column.kind]} AS "{column.name}"' for column in table.columns
        )
        queries.append(f"SELECT {nothing}, NULL::VARCHAR AS tenant, NULL::DATE AS day WHERE false")
    return f"SELECT {columns}, tenant, day FROM ({' UNION ALL BY NAME '.join(queries)})"  # noqa: S608


def _read(part: _Part, days: str | None) -> str:
    kind = "DATE" if part.folder == "day" else "VARCHAR"
    found = (
        f"SELECT * FROM read_parquet({_quoted(part.files)}, hive_partitioning = true,"  # noqa: S608
        f" hive_types = {{'tenant': VARCHAR, '{part.folder}': {kind}}}"
        f"{'' if part.uniform and not part.known_first else ', union_by_name = true'})"
    )
    if part.folder == "month" and days is not None:
        found += f" WHERE (tenant, day) NOT IN ({_own_days(days)})"
    return found


def _own_days(days: str) -> str:
    """The tenants' days that have a file of their own, by the files' names."""
    return (
        "SELECT (regexp_extract(file, 'tenant=([^/]+)/', 1),"  # noqa: S608
        f" regexp_extract(file, 'day=([^/]+)/', 1)::DATE) FROM glob({_quoted(days)})"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def reason_of(error: "duckdb.Error") -> str:
    """What DuckDB says; of what this package's file system refuses, without the way through its code."""
    text = str(error)
    if not text.startswith("Traceback"):
        return text
    return text.partition("\n\n")[0].splitlines()[-1]
