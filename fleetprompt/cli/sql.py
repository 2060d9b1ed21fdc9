"""``fleetprompt sql``: questions to the lake, in DuckDB."""

import csv as csv_module
import sys
from typing import Annotated, Any

import typer

from fleetprompt.cli.support import fail
from fleetprompt.settings import get_settings

app = typer.Typer(add_completion=False)
Lake = Annotated[
    str | None,
    typer.Option(help="A folder or s3://, gs://, abfs:// address. Default: this platform's lake."),
]
Tenant = Annotated[
    str | None, typer.Option(help="Only this tenant's files; nothing else can then be read.")
]


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="SQL. Without: read from the input.")] = None,
    tenant: Tenant = None,
    lake: Lake = None,
    csv: Annotated[bool, typer.Option("--csv", help="CSV in place of a table.")] = False,
) -> None:
    """Ask the lake.

    Views: signals, daily_counts, executions, cost, emails, conversations, conversation_days, digests.
    """
    import duckdb

    from fleetprompt.errors import FleetPromptError
    from fleetprompt.lake.views import open_lake, reason_of

    try:
        with open_lake(
            lake or get_settings().lake, tenant=tenant, locked=tenant is not None
        ) as connection:
            if query is not None or not sys.stdin.isatty():
                _answer(connection, query or sys.stdin.read(), csv=csv)
                return
            while True:
                try:
                    _answer(connection, input("lake> "), csv=csv)
                except duckdb.Error as error:
                    print(reason_of(error), file=sys.stderr)
                except (EOFError, KeyboardInterrupt):
                    return
    except FleetPromptError as error:
        fail(error)
    except duckdb.Error as error:
        print(f"error: {reason_of(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


def _answer(connection: Any, query: str, *, csv: bool) -> None:
    if csv:
        found = connection.execute(query)
        writer = csv_module.writer(sys.stdout)
        writer.writerow([column[0] for column in found.description])
        while rows := found.fetchmany(10_000):
            writer.writerows(rows)
    elif (answer := connection.sql(query)) is not None:
        answer.show(max_rows=200)
