"""A directive type that connectors work off, and asking for it."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import (
    AnyDirectiveType,
    DirectiveParams,
    DirectiveType,
    RetryPolicy,
)
from fleetprompt.ids import new_id
from fleetprompt.tenants.service import Tenant

ADMIN = Actor("user:ada", "admin")


class Letter(DirectiveParams):
    """What to carry."""

    words: str = "hello"


CARRY: AnyDirectiveType = DirectiveType(
    "test.carry",
    "Carries words to where only the connector can go.",
    Letter,
    target="connector",
    retry=RetryPolicy(max_attempts=3, first_bound=0.001, longest_bound=0.001),
)
DIRECTIVE_TYPES = (CARRY,)
TYPES: Mapping[str, AnyDirectiveType] = {CARRY.name: CARRY}


async def connector_directive(
    session: AsyncSession, tenant: Tenant, connector_id: str | None = "laptop", **asked: Any
) -> Directive:
    """A new directive for a connector."""
    rest = {"idempotency_key": str(new_id()), "actor": ADMIN, "types": TYPES, **asked}
    params = rest.pop("params", {})
    directive, _ = await request_directive(
        session, tenant, CARRY.name, params, target=connector_id, **rest
    )
    return directive
