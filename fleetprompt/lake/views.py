"""The lake as DuckDB views, one for each table."""

from pathlib import Path
from typing import TYPE_CHECKING

from fleetprompt.lake.columns import TABLES, Table
from fleetprompt.lake.layout import FILE_NAME
from fleetprompt.tenants.service import check_slug

if TYPE_CHECKING:
    import duckdb

_SQL_KINDS = {"string": "VARCHAR", "timestamp": "TIMESTAMPTZ", "bigint": "BIGINT"}


def open_lake(lake: Path, *, tenant: str | None = None) -> "duckdb.DuckDBPyConnection":
    """An in-memory DuckDB with a view for each table of the lake; times are shown in UTC.

    Each view has the table's columns and then ``tenant`` and ``day``. With ``tenant`` the views read
    that tenant's files alone. A table without files is an empty view.
    """
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for table in TABLES:
        connection.execute(f'CREATE VIEW "{table.name}" AS {_query(lake, table, tenant)}')
    return connection


def _query(lake: Path, table: Table, tenant: str | None) -> str:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    files = f"tenant={check_slug(tenant) if tenant else '*'}/day=*/{FILE_NAME}"
    if next((lake / table.name).glob(files), None) is None:
        empty = ", ".join(
            f'NULL::{_SQL_KINDS[column.kind]} AS "{column.name}"' for column in table.columns
        )
        return f"SELECT {empty}, NULL::VARCHAR AS tenant, NULL::DATE AS day WHERE false"
    path = str(lake / table.name / files).replace("'", "''")
    # The text is made from this package's own table names and the operator's own folder.
    return (
        f"SELECT {columns}, tenant, day FROM read_parquet('{path}',"  # noqa: S608
        " hive_partitioning = true, hive_types = {'tenant': VARCHAR, 'day': DATE})"
    )
