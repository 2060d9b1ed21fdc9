"""``fleetprompt export``: a tenant's data as CSV, Parquet or JSON lines."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fleetprompt.cli.support import fail
from fleetprompt.settings import get_settings

app = typer.Typer(add_completion=False)
Lake = Annotated[
    str | None,
    typer.Option(help="A folder or s3://, gs://, abfs:// address. Default: this platform's lake."),
]


@app.command()
def export(
    tenant: Annotated[str, typer.Argument(help="The tenant's slug.")],
    file: Annotated[Path, typer.Argument(help="Where to: ends in .csv, .parquet or .jsonl.")],
    query: Annotated[
        str, typer.Option("--query", help="What to export. Default: every signal.")
    ] = "SELECT * FROM signals ORDER BY occurred_at, id",
    lake: Lake = None,
) -> None:
    """Write a tenant's data, or the answer to a question about it, into a file."""
    import duckdb

    from fleetprompt.errors import FleetPromptError
    from fleetprompt.lake.exporting import export as export_rows
    from fleetprompt.lake.views import reason_of

    try:
        rows = export_rows(lake or get_settings().lake, tenant, query, file)
    except FleetPromptError as error:
        fail(error)
    except duckdb.Error as error:
        print(f"error: {reason_of(error)}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"Wrote {rows} rows into {file}.")
