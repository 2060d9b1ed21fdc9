"""Creating, listing and deleting tenants."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.db.roles import drop_tenant_schema
from fleetprompt.db.urls import owner_url
from fleetprompt.errors import ConflictError, InvalidError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.models import Organization

# Lower-case ASCII only: a slug is part of a schema, a role, a folder and a Dagster partition key, and
# none of those may read it differently. 48 characters leave room for "org_" in PostgreSQL's 63 bytes.
_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
SLUG_LIMIT = 48


@dataclass(frozen=True)
class Tenant:
    """Whose data a transaction is about."""

    id: UUID
    slug: str
    schema: str


def check_slug(slug: str) -> str:
    """``slug`` itself, or InvalidError saying what is allowed."""
    if len(slug) > SLUG_LIMIT or not _SLUG.fullmatch(slug):
        raise InvalidError(
            "This slug cannot be used.",
            errors=[
                {
                    "pointer": "/slug",
                    "detail": (
                        f"a slug has 1 to {SLUG_LIMIT} characters: lower-case letters a-z, digits, and "
                        "single hyphens between them, such as 'acme-support'"
                    ),
                }
            ],
        )
    return slug


def schema_of(slug: str) -> str:
    """The schema (and role) of a tenant; injective because a slug holds no underscore."""
    return f"org_{check_slug(slug)}"


def as_tenant(organization: Organization) -> Tenant:
    """The identity of an organization."""
    return Tenant(organization.id, organization.slug, organization.schema_name)


async def create_tenant(settings: Settings, *, slug: str, name: str) -> Tenant:
    """Create an organization with its schema, role and tables.

    Needs the owner's login. A slug that is taken is a ConflictError; one whose making was
    interrupted is finished.
    """
    # Alembic comes with it, which nothing but the making of a tenant needs: a third of a second.
    from fleetprompt.db.migrate import provision

    schema = schema_of(slug)
    name = name.strip()
    if not name or len(name) > 200 or "\x00" in name:
        raise InvalidError(
            "This name cannot be used.",
            errors=[{"pointer": "/name", "detail": "a name has 1 to 200 characters"}],
        )
    async with Database.owner(settings) as owner, _one_at_a_time(owner, slug):
        async with owner.platform() as session:
            found = await _by_slug(session, slug)
            if found is not None and found.state != "creating":
                raise ConflictError(f"There is a tenant {slug!r} already. Choose another slug.")
            if found is None:
                found = Organization(id=new_id(), slug=slug, name=name, schema_name=schema)
                found.state = "creating"
                session.add(found)
            tenant = as_tenant(found)
        await asyncio.to_thread(provision, owner.url, schema)
        async with owner.platform() as session:
            await session.execute(
                text("UPDATE fleetprompt.organizations SET state = 'active' WHERE id = :id"),
                {"id": tenant.id},
            )
    return tenant


async def ensure_operations_tenant(settings: Settings) -> Tenant:
    """The operator's own tenant, made when it is not there yet."""
    slug = settings.operations_tenant
    async with Database.owner(settings) as owner:
        async with owner.platform() as session:
            found = await _by_slug(session, slug)
        if found is not None and found.state == "active":
            return as_tenant(found)
    return await create_tenant(settings, slug=slug, name="Operations")


async def list_tenants(session: AsyncSession) -> list[Organization]:
    """All organizations by slug."""
    return list(await session.scalars(select(Organization).order_by(Organization.slug)))


async def get_tenant(session: AsyncSession, slug: str) -> Tenant:
    """The active tenant with this slug; NotFoundError otherwise."""
    found = await _by_slug(session, slug)
    if found is None or found.state != "active":
        raise NotFoundError(f"There is no tenant {slug!r}.")
    return as_tenant(found)


async def active_tenants(session: AsyncSession) -> list[Tenant]:
    """All tenants that may be worked for, by slug."""
    return [as_tenant(o) for o in await list_tenants(session) if o.state == "active"]


async def delete_tenant(settings: Settings, *, slug: str, typed: str) -> None:
    """Remove a tenant for good: keys, schema, role, lake files; Dagster forgets its partitions next.

    ``typed`` must repeat the slug. An interrupted deletion is finished by asking again.
    """
    if typed != slug:
        raise InvalidError(
            f"Deleting a tenant cannot be undone. Type its slug, {slug!r}, to go on.",
            errors=[{"pointer": "/confirm", "detail": "does not repeat the tenant's slug"}],
        )
    async with Database.owner(settings) as owner, _one_at_a_time(owner, slug):
        async with owner.platform() as session:
            found = await _by_slug(session, slug)
            if found is None:
                raise NotFoundError(f"There is no tenant {slug!r}.")
            # From here on no key of this tenant is valid.
            found.state = "deleting"
            tenant = as_tenant(found)
        await asyncio.to_thread(_drop, owner_url(settings), tenant.schema)
        await asyncio.to_thread(_remove_lake, settings, slug)
        async with owner.platform() as session:
            await session.delete(await session.get_one(Organization, tenant.id))


@asynccontextmanager
async def _one_at_a_time(owner: Database, slug: str) -> AsyncIterator[None]:
    """Lets one process at a time create or delete this tenant; the lock ends with the connection."""
    async with owner.engine.connect() as connection:
        await connection.execute(
            text("SELECT pg_advisory_lock(hashtextextended(:slug, 0))"), {"slug": slug}
        )
        await connection.commit()
        try:
            yield
        finally:
            await connection.invalidate()


def _drop(url: str, schema: str) -> None:
    with psycopg.connect(url) as connection:
        drop_tenant_schema(connection, schema)


def _remove_lake(settings: Settings, slug: str) -> None:
    from fleetprompt.lake.layout import remove_tenant_files

    remove_tenant_files(settings.lake, slug)


async def _by_slug(session: AsyncSession, slug: str) -> Organization | None:
    found: Organization | None = await session.scalar(
        select(Organization).where(Organization.slug == slug)
    )
    return found
