"""``fleetprompt analysts``: logins of PostgreSQL that read one tenant."""

from typing import Annotated

import typer

from fleetprompt.cli.support import run
from fleetprompt.settings import get_settings

app = typer.Typer(
    help="Logins that read one tenant in PostgreSQL: grant, revoke.", no_args_is_help=True
)
Slug = Annotated[str, typer.Argument(help="The tenant's slug.")]


@app.command()
def grant(tenant: Slug) -> None:
    """Make the tenant's reading login, or give it a new password; prints its address, once."""
    from fleetprompt.tenants.readers import grant_reader

    print(run(grant_reader(get_settings(), tenant)).url)


@app.command()
def revoke(tenant: Slug) -> None:
    """Take the login away; its connections end."""
    from fleetprompt.tenants.readers import revoke_reader

    run(revoke_reader(get_settings(), tenant))
    print(f"{tenant} has no login for analysts any more.")
