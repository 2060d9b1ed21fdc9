"""Names for those who act: people by their address instead of their id."""

import re
from collections.abc import Iterable
from uuid import UUID

from fleetprompt.db.engine import Database
from fleetprompt.tenants.members import addresses_of
from fleetprompt.tenants.service import Tenant

_USER = re.compile(r"\buser:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b")


class People:
    """Tells who ``user:<id>`` is, where that is a member."""

    def __init__(self, addresses: dict[UUID, str]) -> None:
        self._addresses = addresses

    def name(self, actor: str | None) -> str:
        """An actor in a few words."""
        if actor is None:
            return "nobody"
        kind, _, own = actor.partition(":")
        if kind == "key":
            return f"an API key ({own[:8]})"
        if kind == "connector":
            return f"the connector {own}"
        if actor == "platform":
            return "the platform"
        return self.in_text(actor)

    def in_text(self, text: str) -> str:
        """``text`` with every member's id replaced by the address."""
        return _USER.sub(lambda found: self._addresses.get(UUID(found[1]), found[0]), text)


async def people_in(database: Database, tenant: Tenant, texts: Iterable[str | None]) -> People:
    """Those whom these texts name."""
    ids = {UUID(found) for text in texts if text for found in _USER.findall(text)}
    if not ids:
        return People({})
    async with database.platform() as session:
        return People(await addresses_of(session, tenant, ids))
