"""``fleetprompt console``: sign people in and out."""

from typing import Annotated

import typer

from fleetprompt.cli.support import run
from fleetprompt.settings import get_settings

app = typer.Typer(help="The console: link, sign-out.", no_args_is_help=True)
Tenant = Annotated[str, typer.Option("--tenant", help="The tenant's slug.")]
Member = Annotated[str, typer.Option("--member", help="The member's e-mail address.")]


@app.command()
def link(tenant: Tenant, member: Member) -> None:
    """Print a link that signs this member in. It works once, and only for a short time."""
    from fleetprompt.db.engine import Database
    from fleetprompt.sessions.service import Sessions
    from fleetprompt.tenants.members import find_member
    from fleetprompt.tenants.service import get_tenant

    async def work() -> str:
        settings = get_settings()
        async with Database.application(settings) as database:
            async with database.platform() as session:
                found = await get_tenant(session, tenant)
                user_id = (await find_member(session, found, member)).user_id
            return await Sessions(database, settings).make_link(found, user_id)

    token = run(work())
    print(f"{get_settings().api_url}/console/link/{token}")


@app.command("sign-out")
def sign_out(tenant: Tenant, member: Member) -> None:
    """End every session of this member, and every link not used yet."""
    from fleetprompt.db.engine import Database
    from fleetprompt.sessions.service import Sessions
    from fleetprompt.tenants.members import find_member
    from fleetprompt.tenants.service import get_tenant

    async def work() -> int:
        settings = get_settings()
        async with Database.application(settings) as database:
            async with database.platform() as session:
                found = await get_tenant(session, tenant)
                user_id = (await find_member(session, found, member)).user_id
            return await Sessions(database, settings).close_all(found, user_id)

    print(f"Ended {run(work())} sessions of {member}.")
