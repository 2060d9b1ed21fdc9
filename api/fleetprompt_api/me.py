"""Who am I: what a key or a session says of its holder."""

from uuid import UUID

from pydantic import BaseModel

from fleetprompt_api.auth import AnyKey
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Links

routes = router("me")


class TenantName(BaseModel):
    """The key's tenant."""

    id: UUID
    slug: str


class Me(BaseModel):
    """The caller; of `key_id` and `session_id` the one that the request came with is set."""

    tenant: TenantName
    key_id: UUID | None
    session_id: UUID | None
    kind: str
    role: str | None
    scopes: list[str]
    user_id: UUID | None
    connector_id: str | None
    links: Links


@routes.get("/me")
async def read_me(caller: AnyKey) -> Me:
    """The tenant, role and scopes of the key or session that asks."""
    return Me(
        tenant=TenantName(id=caller.tenant.id, slug=caller.tenant.slug),
        key_id=caller.key_id,
        session_id=caller.session_id,
        kind=caller.kind,
        role=caller.role,
        scopes=sorted(caller.scopes),
        user_id=caller.user_id,
        connector_id=caller.connector_id,
        links={
            "self": "/api/v1/me",
            "signals": "/api/v1/signals",
            "packages": "/api/v1/packages",
            "installations": "/api/v1/installations",
        },
    )
