"""``fleetprompt keys``: issue, list, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from fleetprompt.cli.support import fail, print_json, print_table, run
from fleetprompt.errors import InvalidError
from fleetprompt.settings import get_settings
from fleetprompt.tenants.keys import ROLES, Kind, Role

app = typer.Typer(help="API keys: issue, list, revoke.", no_args_is_help=True)
Tenant = Annotated[str, typer.Argument(help="The tenant's slug.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
_KINDS: tuple[Kind, ...] = ("user", "conn", "pub")


@app.command()
def issue(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "command line",
    kind: Annotated[str, typer.Option(help="user, conn or pub.")] = "user",
    role: Annotated[str | None, typer.Option(help="owner, admin, member or viewer.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help="Repeat for several. Default: all of the kind.")
    ] = None,
    connector_id: Annotated[str | None, typer.Option(help="For a connector's key.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key. Its text is shown once and kept nowhere."""
    from fleetprompt.db.engine import Database
    from fleetprompt.tenants.key_service import KeyRequest, issue_key
    from fleetprompt.tenants.service import get_tenant

    request = KeyRequest(
        kind=_one_of("kind", kind, _KINDS),
        name=name,
        scopes=frozenset(scope or ()),
        role=_role(kind, role),
        connector_id=connector_id,
        expires_at=datetime.now(UTC) + timedelta(days=days) if days else None,
    )

    async def work() -> dict[str, Any]:
        settings = get_settings()
        async with Database.application(settings) as database, database.platform() as session:
            found = await get_tenant(session, tenant)
            key, token = await issue_key(session, settings, found, request)
            return {"id": key.id, "token": token, "scopes": key.scopes, "role": key.role}

    made = run(work())
    if as_json:
        print_json(made)
    else:
        print(made["token"])


def _role(kind: str, role: str | None) -> Role | None:
    if kind != "user":
        return None
    chosen: Role = _one_of("role", role or "member", ROLES)
    return chosen


def _one_of(what: str, value: str, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        fail(InvalidError(f"--{what} is one of {', '.join(allowed)}, not {value!r}."))
    return value


@app.command("list")
def list_command(tenant: Tenant, as_json: Json = False) -> None:
    """Show a tenant's keys; their text cannot be shown again."""
    from fleetprompt.db.engine import Database
    from fleetprompt.tenants.key_service import list_keys
    from fleetprompt.tenants.service import get_tenant

    async def work() -> list[list[Any]]:
        async with Database.application(get_settings()) as database, database.platform() as session:
            keys = await list_keys(session, await get_tenant(session, tenant))
            return [
                [
                    *(k.id, k.name, k.hint, k.role),
                    *(k.last_used_at, k.expires_at, k.revoked_at, " ".join(k.scopes)),
                ]
                for k in keys
            ]

    columns = ["id", "name", "hint", "role", "last used", "expires", "revoked", "scopes"]
    rows = run(work())
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        times = [[one and f"{one:%Y-%m-%d %H:%M}" for one in row[4:7]] for row in rows]
        shown = [[*row[:4], *ended, row[7]] for row, ended in zip(rows, times, strict=True)]
        print_table(f"keys of {tenant}: {len(rows)}", columns, shown)


@app.command()
def revoke(tenant: Tenant, key_id: Annotated[UUID, typer.Argument()]) -> None:
    """End a key; every process refuses it within a second."""
    from fleetprompt.db.engine import Database
    from fleetprompt.tenants.key_service import revoke_key
    from fleetprompt.tenants.service import get_tenant

    async def work() -> None:
        async with Database.application(get_settings()) as database, database.platform() as session:
            await revoke_key(session, await get_tenant(session, tenant), key_id)

    run(work())
    print(f"Revoked {key_id}.")
