"""The catalogue of packages, and installing one."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from fleetprompt.directives.wake import notify_directives
from fleetprompt.packages import registry, service
from fleetprompt.packages.manifest import Manifest, Provided
from fleetprompt_api.auth import PackagesRead, PackagesWrite, Platform, actor_of
from fleetprompt_api.idempotency import IdempotencyKey, Ids, once
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.requested import Requested, answer
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Links, Listing, listing

routes = router("packages")

Slug = Annotated[
    str,
    Path(max_length=63, pattern=r"^[a-z0-9_]+$", examples=["mattermost_daily_ops_digest"]),
]


class PackageView(BaseModel):
    """A package: what it says of itself, and the tenant's installation of it."""

    slug: str
    name: str
    version: str
    category: str
    publisher: str
    description: str
    provides: list[Provided]
    consumes: list[str]
    emits: list[str]
    hosts: list[str]
    config: dict[str, Any]
    onboarding: str
    installation_id: UUID | None
    links: Links


class Install(BaseModel):
    """How to install; options left out have the defaults of the package's schema."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] = {}


@routes.get("/packages")
async def list_packages(
    request: Request, caller: PackagesRead, platform: Platform
) -> Listing[PackageView]:
    """Every package that can be installed, by slug."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        installed = await _installed(session)
    found = registry.registry().values()
    return listing(request, [_view(one, installed.get(one.slug)) for one in found])


@routes.get("/packages/{slug}")
async def read_package(slug: Slug, caller: PackagesRead, platform: Platform) -> PackageView:
    """One package with the JSON Schema of its configuration."""
    manifest = registry.get(slug)
    async with platform.database.tenant(caller.tenant.schema) as session:
        installed = await _installed(session)
    return _view(manifest, installed.get(slug))


@routes.post("/packages/{slug}/install", status_code=202, responses=problems(409))
async def install_package(
    slug: Slug,
    caller: PackagesWrite,
    platform: Platform,
    asked: Install | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Requested:
    """Ask for a package. However often it is asked: one directive, one installation."""
    config = asked.config if asked else {}
    request = {"operation": "install", "package": slug, "config": config}
    registry.validate_config(registry.get(slug), config)
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            directive, installation = await service.install(
                session, caller.tenant, slug, config, actor_of(caller)
            )
            return {"directive_id": str(directive.id), "installation_id": str(installation.id)}

        ids = await once(session, caller, idempotency_key, request, act)
        requested = await answer(session, ids)
    await notify_directives(platform.database)
    return requested


async def _installed(session: AsyncSession) -> dict[str, UUID]:
    return {one.package: one.id for one in await service.list_installations(session)}


def _view(manifest: Manifest, installation_id: UUID | None) -> PackageView:
    links = {
        "self": f"/api/v1/packages/{manifest.slug}",
        "install": f"/api/v1/packages/{manifest.slug}/install",
    }
    if installation_id is not None:
        links["installation"] = f"/api/v1/installations/{installation_id}"
    return PackageView(
        slug=manifest.slug,
        name=manifest.name,
        version=manifest.version,
        category=manifest.category,
        publisher=manifest.publisher,
        description=manifest.description,
        provides=list(manifest.provides),
        consumes=list(manifest.consumes),
        emits=list(manifest.emits),
        hosts=list(manifest.hosts),
        config=manifest.config,
        onboarding=manifest.onboarding,
        installation_id=installation_id,
        links=links,
    )
