"""``fleetprompt backup``: one tenant into one file."""

from pathlib import Path
from typing import Annotated

import typer

from fleetprompt.cli.support import run
from fleetprompt.settings import get_settings

app = typer.Typer(add_completion=False)


@app.command()
def backup(
    tenant: Annotated[str, typer.Argument(help="The tenant's slug.")],
    file: Annotated[Path, typer.Argument(help="Where to write; what is there is replaced.")],
) -> None:
    """Write a tenant into one file: rows, lake files, sealed credentials. Everything goes on meanwhile."""
    from fleetprompt.backup.writing import back_up

    manifest = run(back_up(get_settings(), tenant, file))
    rows = sum(table.rows for table in manifest.tables)
    print(f"Wrote {tenant} into {file}: {rows} rows, {manifest.lake_files} lake files.")
    print(
        f"Credentials in it open with master key {manifest.master_key_id} alone; all else is readable "
        "by whoever has the file."
    )
