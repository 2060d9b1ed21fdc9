"""``fleetprompt migrate``: bring the database to the newest revision."""

from typing import Annotated

import typer

from fleetprompt.cli.support import fail, print_json, run
from fleetprompt.errors import FleetPromptError
from fleetprompt.settings import get_settings

app = typer.Typer(add_completion=False)


@app.command()
def migrate_command(
    jobs: Annotated[int, typer.Option(min=1, max=32, help="Tenants at the same time.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for programs.")] = False,
) -> None:
    """Migrate the platform, then every tenant. Safe to repeat; goes on where it was stopped.

    Also makes the operator's own tenant, which holds the platform's activity.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from fleetprompt.db.migrate import migrate, state
    from fleetprompt.tenants.service import ensure_operations_tenant

    settings = get_settings()
    try:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            transient=True,
            disable=as_json,
        ) as bar:
            task = bar.add_task("migrating", total=None)

            def progress(what: str, done: int, total: int) -> None:
                bar.update(
                    task, description=f"migrating {what}", completed=done, total=total or None
                )

            migrate(settings, progress=progress, jobs=jobs)
            run(ensure_operations_tenant(settings))
        found = state(settings)
    except FleetPromptError as error:
        fail(error)
    if as_json:
        print_json(
            {"platform": found.platform, "tenants": found.tenants, "tenant": found.tenant_head}
        )
    else:
        print(f"Platform at {found.platform}; {found.tenants} tenants at {found.tenant_head}.")
