"""API keys of a tenant. A token is shown once, when its key is made."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from fleetprompt.errors import ForbiddenError
from fleetprompt.tenants import key_service
from fleetprompt.tenants.keys import Kind, Role, Scope
from fleetprompt.tenants.members import get_member
from fleetprompt.tenants.models import ApiKey
from fleetprompt_api.auth import KeysManage, Platform
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Instant, Links, Listing, Text, Wire, listing

routes = router("keys")


class KeyView(Wire):
    """A key without its token; ``hint`` is how it starts."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    kind: Kind
    name: str
    hint: str
    scopes: list[str]
    role: Role | None
    user_id: UUID | None
    connector_id: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    links: Links = Field(default_factory=dict)


class IssuedKey(KeyView):
    """A new key with its token, which nobody can show again."""

    token: str

    @classmethod
    def of(cls, key: ApiKey, token: str) -> "IssuedKey":
        """As answered to whoever asked for it."""
        return cls(**_view(key).model_dump(), token=token)


class NewKey(BaseModel):
    """A key to be made. Without ``scopes`` it gets all that its kind may have."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    name: Annotated[Text, Field(max_length=100)]
    scopes: frozenset[Scope] = frozenset()
    role: Role | None = None
    user_id: UUID | None = None
    connector_id: Annotated[Text, Field(max_length=128)] | None = None
    expires_at: Instant | None = None


@routes.get("/keys")
async def list_keys(request: Request, caller: KeysManage, platform: Platform) -> Listing[KeyView]:
    """All keys, newest first."""
    async with platform.database.platform() as session:
        found = await key_service.list_keys(session, caller.tenant)
    return listing(request, [_view(key) for key in found])


@routes.post("/keys", status_code=201, responses=problems(404))
async def issue_key(new: NewKey, caller: KeysManage, platform: Platform) -> IssuedKey:
    """Make a key that may do no more than the one that asks for it.

    A key in another person's name is an owner's to make: whoever holds it decides as that person.
    """
    if new.user_id not in (None, caller.user_id) and caller.role != "owner":
        raise ForbiddenError("Only an owner makes keys in the name of somebody else.", role="owner")
    asked = key_service.KeyRequest(
        kind=new.kind,
        name=new.name,
        scopes=frozenset(scope.value for scope in new.scopes),
        role=new.role,
        user_id=new.user_id,
        connector_id=new.connector_id,
        expires_at=new.expires_at,
    )
    async with platform.database.platform() as session:
        if new.user_id is not None:
            await get_member(session, caller.tenant, new.user_id)
        key, token = await key_service.issue_key(
            session, platform.settings, caller.tenant, asked, issuer=caller
        )
    return IssuedKey.of(key, token)


@routes.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: UUID, caller: KeysManage, platform: Platform) -> None:
    """End a key; every process refuses it within a second. Again is no error."""
    async with platform.database.platform() as session:
        await key_service.revoke_key(session, caller.tenant, key_id)


def _view(key: ApiKey) -> KeyView:
    view = KeyView.model_validate(key)
    view.links = {"self": f"/api/v1/keys/{key.id}"}
    return view
