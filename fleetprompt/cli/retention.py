"""``fleetprompt retention``: how long a tenant keeps what, and removing what is due now."""

from typing import Annotated, Any

import typer

from fleetprompt.cli.support import print_json, print_table, run
from fleetprompt.settings import get_settings

app = typer.Typer(help="How long what is kept: show, set, run.", no_args_is_help=True)
Slug = Annotated[str, typer.Argument(help="The tenant's slug.")]
FamilyName = Annotated[
    str, typer.Argument(help="signals, lake, executions, directives or conversations.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]


@app.command()
def show(tenant: Slug, as_json: Json = False) -> None:
    """Show how many days the tenant keeps each family, and whose term that is."""
    from fleetprompt.db.engine import Database
    from fleetprompt.retention.families import RULES
    from fleetprompt.retention.terms import terms_of
    from fleetprompt.tenants.service import get_tenant

    async def work() -> list[dict[str, Any]]:
        settings = get_settings()
        async with Database.application(settings) as database, database.platform() as session:
            terms = await terms_of(session, settings, await get_tenant(session, tenant))
        return [
            {"family": name, "days": term.days, "own": term.own, "rule": RULES[name].summary}
            for name, term in terms.items()
        ]

    found = run(work())
    if as_json:
        print_json(found)
        return
    print_table(
        f"What {tenant} keeps",
        ["family", "days", "whose term", "then"],
        [
            [
                one["family"],
                one["days"] or "for ever",
                "its own" if one["own"] else "platform",
                one["rule"],
            ]
            for one in found
        ],
    )


@app.command("set")
def set_command(
    tenant: Slug,
    family: FamilyName,
    days: Annotated[str, typer.Argument(help="Days, 'forever', or 'default'.")],
) -> None:
    """Give the tenant a term of its own, or the platform's default again."""
    from fleetprompt.db.engine import Database
    from fleetprompt.errors import InvalidError
    from fleetprompt.retention.families import family_of
    from fleetprompt.retention.terms import drop_term, set_term
    from fleetprompt.tenants.service import get_tenant

    async def work() -> None:
        if days not in ("forever", "default") and not (days.isascii() and days.isdigit()):
            raise InvalidError("Give a number of days, 'forever' or 'default'.")
        async with Database.application(get_settings()) as database, database.platform() as session:
            whose = await get_tenant(session, tenant)
            if days == "default":
                await drop_term(session, whose, family_of(family))
            else:
                wanted = None if days == "forever" else int(days)
                await set_term(session, whose, family_of(family), wanted, by="operator")

    run(work())
    print(f"{tenant} keeps {family}: {days}.")


@app.command("run")
def run_command(tenant: Slug, as_json: Json = False) -> None:
    """Remove what is due now, as the nightly job does. Safe to stop and to repeat."""
    from dataclasses import asdict

    from fleetprompt.clock import system_clock
    from fleetprompt.db.engine import Database
    from fleetprompt.retention.service import apply_retention
    from fleetprompt.tenants.service import get_tenant

    async def work() -> dict[str, Any]:
        settings = get_settings()
        async with Database.application(settings) as database:
            async with database.platform() as session:
                whose = await get_tenant(session, tenant)
            return asdict(await apply_retention(database, settings, whose, system_clock()))

    report = run(work())
    if as_json:
        print_json(report)
        return
    for name in ("signals", "lake_days", "executions", "directives", "conversations"):
        print(f"{name:<14} {report[name]}")
    if report["days_not_in_lake"]:
        print("Kept, because the lake has no file with them yet: days", *report["days_not_in_lake"])
