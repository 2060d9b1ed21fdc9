"""``fleetprompt tenants``: create, list, delete."""

from typing import Annotated, Any

import typer

from fleetprompt.cli.support import print_json, print_table, run
from fleetprompt.settings import get_settings

app = typer.Typer(help="Tenants: create, list, delete.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="Lower-case letters, digits and single hyphens.")],
    name: Annotated[str | None, typer.Option(help="Name for people. Default: the slug.")] = None,
    owner: Annotated[str | None, typer.Option(help="E-mail address of the first owner.")] = None,
    as_json: Json = False,
) -> None:
    """Create a tenant with its own schema and role."""
    from fleetprompt.db.engine import Database
    from fleetprompt.tenants.members import add_member
    from fleetprompt.tenants.service import create_tenant

    async def work() -> dict[str, Any]:
        settings = get_settings()
        tenant = await create_tenant(settings, slug=slug, name=name or slug)
        if owner is not None:
            async with Database.application(settings) as database, database.platform() as session:
                await add_member(session, tenant, email=owner, role="owner")
        return {"id": tenant.id, "slug": tenant.slug, "schema": tenant.schema}

    made = run(work())
    if as_json:
        print_json(made)
    else:
        print(f"Created {made['slug']} in schema {made['schema']}.")
        print(f"Next: fleetprompt keys issue {made['slug']} --role owner")


@app.command("list")
def list_command(as_json: Json = False) -> None:
    """Show all tenants."""
    from fleetprompt.db.engine import Database
    from fleetprompt.tenants.service import list_tenants

    async def work() -> list[list[Any]]:
        async with Database.application(get_settings()) as database, database.platform() as session:
            return [
                [o.slug, o.name, o.state, o.revision, f"{o.created_at:%Y-%m-%d %H:%M}"]
                for o in await list_tenants(session)
            ]

    columns = ["slug", "name", "state", "revision", "created"]
    rows = run(work())
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(f"{len(rows)} tenants", columns, rows)


@app.command()
def delete(
    slug: Annotated[str, typer.Argument()],
    confirm: Annotated[
        str | None, typer.Option(help="The slug again, instead of typing it when asked.")
    ] = None,
) -> None:
    """Delete a tenant for good: keys, schema, role and lake files."""
    from fleetprompt.tenants.service import delete_tenant

    typed = confirm
    if typed is None:
        print(f"This removes every signal, directive, credential and file of {slug!r} for good.")
        typed = typer.prompt("Type the tenant's slug to go on")
    run(delete_tenant(get_settings(), slug=slug, typed=typed))
    print(f"Deleted {slug}. Dagster forgets its partitions within a minute.")
