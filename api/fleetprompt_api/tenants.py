"""Tenants, for the operator: a key of the operations tenant with scope ``tenants:admin``."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from fleetprompt.tenants import service
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.members import add_member
from fleetprompt_api.auth import Platform, TenantsAdmin
from fleetprompt_api.keys import IssuedKey
from fleetprompt_api.members import EmailAddress
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Listing, Text, Wire, listing

routes = router("tenants")


class TenantView(Wire):
    """A tenant as the operator sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    slug: str
    name: str
    state: str
    created_at: datetime


class NewTenant(BaseModel):
    """A tenant to be made; with ``owner_email`` somebody can use it at once."""

    model_config = ConfigDict(extra="forbid")

    slug: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$",
            max_length=service.SLUG_LIMIT,
            description="Lower-case letters, digits and single hyphens between them.",
        ),
    ]
    name: Annotated[Text, Field(max_length=200)]
    owner_email: EmailAddress | None = None


class CreatedTenant(BaseModel):
    """A new tenant; ``owner_key`` holds the owner's token, shown this once."""

    id: UUID
    slug: str
    name: str
    owner_key: IssuedKey | None
    links: dict[str, str]


class TypedSlug(BaseModel):
    """The slug again, typed by hand: deleting cannot be undone."""

    model_config = ConfigDict(extra="forbid")

    confirm: Annotated[str, Field(max_length=200)]


@routes.get("/tenants")
async def list_tenants(
    request: Request, _operator: TenantsAdmin, platform: Platform
) -> Listing[TenantView]:
    """All tenants by slug."""
    async with platform.database.platform() as session:
        found = await service.list_tenants(session)
    return listing(request, [TenantView.model_validate(one) for one in found])


@routes.post("/tenants", status_code=201, responses=problems(409))
async def create_tenant(
    new: NewTenant, _operator: TenantsAdmin, platform: Platform
) -> CreatedTenant:
    """Make a tenant with its schema and role, and its owner with a key where an address is given."""
    tenant = await service.create_tenant(platform.settings, slug=new.slug, name=new.name)
    owner_key = None
    if new.owner_email is not None:
        async with platform.database.platform() as session:
            owner = await add_member(session, tenant, email=new.owner_email, role="owner")
            asked = KeyRequest("user", "Owner's first key", role="owner", user_id=owner.user_id)
            key, token = await issue_key(session, platform.settings, tenant, asked)
            owner_key = IssuedKey.of(key, token)
    return CreatedTenant(
        id=tenant.id,
        slug=tenant.slug,
        name=new.name,
        owner_key=owner_key,
        links={"tenants": "/api/v1/tenants"},
    )


@routes.delete("/tenants/{slug}", status_code=204)
async def delete_tenant(
    slug: Annotated[Text, Field(max_length=200)],
    typed: TypedSlug,
    _operator: TenantsAdmin,
    platform: Platform,
) -> None:
    """Remove a tenant for good: keys, data, files."""
    await service.delete_tenant(platform.settings, slug=slug, typed=typed.confirm)
