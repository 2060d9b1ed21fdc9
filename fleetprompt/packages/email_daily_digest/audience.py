"""Who gets the digest: the tenant's active owners and admins, at the moment of asking.

This is the one path on which the platform mails by itself. Its recipients are never taken from a
request, a configuration or a directive alone: what those name is cut down to this set
(research/messaging.md, recipients policy).
"""

from collections.abc import Sequence

from fleetprompt.db.engine import Database
from fleetprompt.directives.types import ADMINISTRATORS
from fleetprompt.errors import InvalidError
from fleetprompt.outbound.transports.smtp import Audience, same_address
from fleetprompt.outbound.transports.smtp.letter import address
from fleetprompt.tenants.members import list_members
from fleetprompt.tenants.service import Tenant


async def active_admins(database: Database, tenant: Tenant) -> list[str]:
    """Their addresses, each once, in the order in which they joined."""
    async with database.platform() as session:
        members = await list_members(session, tenant)
    admins = [one for one in members if one.active and one.role in ADMINISTRATORS]
    admins.sort(key=lambda one: (one.created_at, one.user_id))
    return list(
        {same_address(one.email): one.email for one in admins if _usable(one.email)}.values()
    )


async def audience(
    database: Database, tenant: Tenant, sender: str | None, only: Sequence[str] | None = None
) -> Audience:
    """The admins of this moment, or those of them in ``only``; sent as ``sender`` or the first one."""
    admins = await active_admins(database, tenant)
    named = None if only is None else {same_address(one) for one in only}
    chosen = [one for one in admins if named is None or same_address(one) in named]
    return Audience(sender or next(iter(admins), None), tuple(chosen))


async def refuse_strangers(database: Database, tenant: Tenant, to: Sequence[str]) -> None:
    """InvalidError unless every address is an active admin's; it tells which by position alone."""
    admins = {same_address(one) for one in await active_admins(database, tenant)}
    errors = [
        {"pointer": f"/to/{position}", "detail": "Not the address of an active admin."}
        for position, one in enumerate(to)
        if same_address(one) not in admins
    ]
    if errors:
        raise InvalidError("Test e-mails go to active owners and admins alone.", errors=errors)


def _usable(email: str) -> bool:
    try:
        address(email)
    except ValueError:
        return False
    return True
