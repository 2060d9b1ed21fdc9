"""``fleetprompt restore``: a tenant from its backup."""

from pathlib import Path
from typing import Annotated

import typer

from fleetprompt.cli.support import run
from fleetprompt.settings import get_settings

app = typer.Typer(add_completion=False)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file that `fleetprompt backup` wrote.")],
    as_: Annotated[
        str | None, typer.Option("--as", help="The tenant's new slug. Default: the one it had.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Bring back what is gone: due work is done, keys are valid. Without, a quiet copy.",
        ),
    ] = False,
    without_secrets: Annotated[
        bool,
        typer.Option("--without-secrets", help="Leave credentials out, to be entered again."),
    ] = False,
) -> None:
    """Make a tenant from a backup: a quiet copy to look at or, with --live, the tenant itself."""
    from fleetprompt.backup.restoring import restore as restore_tenant

    done = run(
        restore_tenant(get_settings(), file, slug=as_, live=live, with_secrets=not without_secrets)
    )
    print(
        f"Restored {done.tenant.slug}: {done.rows} rows, {done.lake_files} lake files, "
        f"{done.secrets} secrets sealed anew."
    )
    if not live:
        print("It is a quiet copy: packages are disabled, nothing is due, it has no keys.")
