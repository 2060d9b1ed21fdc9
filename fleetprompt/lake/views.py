"""The lake as DuckDB views: one for each table, and the questions that people ask most."""

from pathlib import Path
from typing import TYPE_CHECKING

from fleetprompt.lake.columns import TABLES, Kind, Table
from fleetprompt.lake.layout import FILE_NAME
from fleetprompt.lake.places import place_of
from fleetprompt.lake.questions import QUESTIONS
from fleetprompt.tenants.service import check_slug

if TYPE_CHECKING:
    import duckdb

SQL_KINDS: dict[Kind, str] = {
    "string": "VARCHAR",
    "timestamp": "TIMESTAMPTZ",
    "bigint": "BIGINT",
    "double": "DOUBLE",
}
_FOLDERS = "hive_partitioning = true, hive_types = {'tenant': VARCHAR"


def open_lake(
    lake: Path | str, *, tenant: str | None = None, locked: bool = False
) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB with the lake's views; times are shown in UTC.

    ``lake`` is a folder, or an address such as ``s3://bucket/lake`` for object storage (credentials from
    the environment). Each table's view has its columns and then ``tenant`` and ``day``. With ``tenant`` the
    views read that tenant's files alone; with ``locked`` too nothing else can be read through the
    connection: no other file, no extension, no other setting. A table without files is an empty view.
    """
    import duckdb

    place = place_of(lake)
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    if place.filesystem is not None:
        connection.register_filesystem(place.filesystem)
    whose = check_slug(tenant) if tenant else "*"
    for table in TABLES:
        root = f"{place.root}/{table.name}/tenant={whose}"
        days = f"{root}/day=*/{FILE_NAME}" if place.exists(f"{root}/day=*/{FILE_NAME}") else None
        months = (
            f"{root}/month=*/{FILE_NAME}" if place.exists(f"{root}/month=*/{FILE_NAME}") else None
        )
        connection.execute(f'CREATE VIEW "{table.name}" AS {_query(table, days, months)}')
    for question in QUESTIONS:
        connection.execute(f'CREATE VIEW "{question.name}" AS {question.sql}')
    if locked:
        _lock(connection, place.root, whose)
    return connection


def _lock(connection: "duckdb.DuckDBPyConnection", root: str, whose: str) -> None:
    folders = ", ".join(_quoted(f"{root}/{table.name}/tenant={whose}/") for table in TABLES)
    connection.execute(f"SET allowed_directories = [{folders}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _query(table: Table, days: str | None, months: str | None) -> str:
    """The text is made from this package's own table names and the operator's own folder."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    nothing = ", ".join(
        f'NULL::{SQL_KINDS[column.kind]} AS "{column.name}"' for column in table.columns
    )
    parts = [f"SELECT {nothing}, NULL::VARCHAR AS tenant, NULL::DATE AS day WHERE false"]
    # Columns that files of an older version do not have are null.
    if days is not None:
        parts.append(
            f"SELECT * FROM read_parquet({_quoted(days)}, union_by_name = true,"  # noqa: S608
            f" {_FOLDERS}, 'day': DATE}})"
        )
    if months is not None:
        own = "" if days is None else f" WHERE (tenant, day) NOT IN ({_own_days(days)})"
        parts.append(
            f"SELECT * EXCLUDE (month) FROM read_parquet({_quoted(months)}, union_by_name = true,"  # noqa: S608
            f" {_FOLDERS}, 'month': VARCHAR}}){own}"
        )
    return f"SELECT {columns}, tenant, day FROM ({' UNION ALL BY NAME '.join(parts)})"  # noqa: S608


def _own_days(days: str) -> str:
    """The tenants' days that have a file of their own, by the files' names."""
    return (
        "SELECT (regexp_extract(file, 'tenant=([^/]+)/', 1),"  # noqa: S608
        f" regexp_extract(file, 'day=([^/]+)/', 1)::DATE) FROM glob({_quoted(days)})"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
