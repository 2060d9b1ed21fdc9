"""Installing, configuring, switching off and removing packages, each by a directive.

Every change is asked for here, in the caller's transaction, and made by the handlers in
``handlers.py``. An unfinished equal request is shared by whoever makes it again; a finished one is
history, and the next request gets a key of its own.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import ADMINISTRATORS
from fleetprompt.errors import ConflictError, ForbiddenError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.packages import registry
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import connectables_of, operations_of
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.models import IntegrationCredential

UNFINISHED = ("requested", "awaiting_approval", "pending", "running")
# An installation in one of these states can be configured, connected and run.
INSTALLED = ("installed", "connected", "degraded")
_LAST = 10


async def install(
    session: AsyncSession, tenant: Tenant, slug: str, config: Mapping[str, Any], actor: Actor
) -> tuple[Directive, Installation]:
    """Ask for a package: one directive and one installation, however often it is asked (trap T44).

    An installed package is answered with what there is; with another configuration it is a
    ConflictError. A failed installation is tried again under a new directive.
    """
    require_administrator(actor)
    manifest = registry.get(slug)
    checked = registry.validate_config(manifest, dict(config)).as_json()
    checksum = registry.config_checksum(checked)
    await session.execute(
        insert(Installation)
        .values(
            id=new_id(),
            package=slug,
            version=manifest.version,
            state="requested",
            config=checked,
            config_checksum=checksum,
        )
        .on_conflict_do_nothing(index_elements=[Installation.package])
    )
    installation = (
        await session.scalars(
            select(Installation)
            .where(Installation.package == slug)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ).one()
    await _check_credential(session, installation, checked)
    base = f"dir:pkg_install:{tenant.slug}:{slug}:{manifest.version}:{checksum}"
    key, existing = await _next_key(session, base)
    if existing is None and installation.state not in ("requested", "failed"):
        latest = await _latest_install(session, installation)
        if latest is None or latest.params["config"] != checked:
            raise ConflictError(f"{slug} is installed already; configure it instead.")
        return latest, installation
    if installation.state == "failed":
        installation.config, installation.config_checksum = checked, checksum
        installation.version = manifest.version
    correlation_id = correlation_of(tenant, installation.id)
    directive, created = await request_directive(
        session,
        tenant,
        "package.install",
        {
            "package": slug,
            "version": manifest.version,
            "installation_id": str(installation.id),
            "config": checked,
        },
        idempotency_key=key,
        actor=actor,
        correlation_id=correlation_id,
    )
    if created:
        await tell(session, "install.requested", installation, directive, actor=actor.id)
        installation.state = "queued"
        await session.flush()
    return directive, installation


async def configure(
    session: AsyncSession,
    tenant: Tenant,
    installation_id: UUID,
    config: Mapping[str, Any],
    actor: Actor,
) -> Directive:
    """Ask for another configuration; it is checked here already, and again when it is applied.

    A connection stays what it is when this is applied, unless ``config`` names another one of this
    installation, or null.
    """
    require_administrator(actor)
    installation = await get_installation(session, installation_id)
    manifest = registry.get(installation.package)
    checked = registry.validate_config(manifest, dict(config)).as_json()
    await _check_credential(session, installation, checked)
    connections = connection_options(installation)
    asked = {
        name: value for name, value in checked.items() if name in config or name not in connections
    }
    checksum = registry.config_checksum(asked)
    return await _ask(
        session, tenant, installation, "configure", actor, f":{checksum}", config=asked
    )


def connection_options(installation: Installation) -> Mapping[str, str]:
    """The options of its configuration that name a connection, each with the kind of its credential."""
    operations = operations_of(installation.package)
    if operations is None:
        return {}
    return {one.option: kind for kind, one in connectables_of(operations).items()}


async def disable(
    session: AsyncSession, tenant: Tenant, installation_id: UUID, actor: Actor
) -> Directive:
    """Ask to switch an installation off: no schedule, no runs, everything kept."""
    installation = await get_installation(session, installation_id)
    return await _ask(session, tenant, installation, "disable", actor)


async def enable(
    session: AsyncSession, tenant: Tenant, installation_id: UUID, actor: Actor
) -> Directive:
    """Ask to switch an installation on again, from now on; nothing missed is caught up."""
    installation = await get_installation(session, installation_id)
    return await _ask(session, tenant, installation, "enable", actor)


async def uninstall(
    session: AsyncSession, tenant: Tenant, installation_id: UUID, actor: Actor
) -> Directive:
    """Ask to remove an installation with its credentials; its history stays in the signals."""
    installation = await get_installation(session, installation_id)
    return await _ask(session, tenant, installation, "uninstall", actor)


async def get_installation(
    session: AsyncSession, installation_id: UUID, *, lock: bool = False
) -> Installation:
    """The tenant's installation of this id, its row locked if asked; NotFoundError otherwise."""
    query = select(Installation).where(Installation.id == installation_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found: Installation | None = await session.scalar(query)
    if found is None:
        raise NotFoundError(f"There is no installation {installation_id}.")
    return found


async def list_installations(session: AsyncSession) -> list[Installation]:
    """The tenant's installations by package."""
    return list(await session.scalars(select(Installation).order_by(Installation.package)))


def require_administrator(actor: Actor) -> None:
    """ForbiddenError unless the actor is an owner or an admin."""
    if actor.role not in ADMINISTRATORS:
        raise ForbiddenError(f"Only owners and admins may do this; this is {actor.role}.")


def correlation_of(tenant: Tenant, installation_id: UUID) -> str:
    """Joins everything that is done to one installation."""
    return f"package:{tenant.slug}:{installation_id}"


async def tell(
    session: AsyncSession,
    what: str,
    installation: Installation,
    directive: Directive | Any,
    **data: str,
) -> None:
    """The signal ``package.<what>`` about an installation, once for each directive."""
    await emit(
        session,
        NewSignal(
            type=f"package.{what}",
            subject_type="installation",
            subject_id=str(installation.id),
            data={
                "package": installation.package,
                "version": installation.version,
                "installation_id": str(installation.id),
                **data,
            },
            correlation_id=directive.correlation_id,
            causation_id=f"directive:{directive.id}",
            dedupe_key=f"package.{what}:{directive.id}",
        ),
    )


async def note_trouble(
    session: AsyncSession, installation_id: UUID, error_kind: str, message: str
) -> None:
    """Show a failure on the installation; one that is switched off stays so."""
    await session.execute(
        update(Installation)
        .where(Installation.id == installation_id)
        .values(
            last_error_kind=error_kind,
            last_error=message,
            last_error_at=func.clock_timestamp(),
            updated_at=func.clock_timestamp(),
        )
    )
    await session.execute(
        update(Installation)
        .where(Installation.id == installation_id, Installation.state.in_(INSTALLED))
        .values(state="degraded")
    )


async def _ask(
    session: AsyncSession,
    tenant: Tenant,
    installation: Installation,
    action: str,
    actor: Actor,
    suffix: str = "",
    **params: Any,
) -> Directive:
    base = f"dir:pkg_{action}:{tenant.slug}:{installation.package}:{installation.id}{suffix}"
    key, _ = await _next_key(session, base)
    directive, created = await request_directive(
        session,
        tenant,
        f"package.{action}",
        {"installation_id": str(installation.id), **params},
        idempotency_key=key,
        actor=actor,
        correlation_id=correlation_of(tenant, installation.id),
    )
    if created:
        await tell(session, f"{action}.requested", installation, directive, actor=actor.id)
    return directive


async def _next_key(session: AsyncSession, base: str) -> tuple[str, Directive | None]:
    """The key of an equal request: an unfinished one's own, with it, or the next one's.

    Keys follow one another, each naming the finished directive before it, so that two who ask
    again at once arrive at the same key.
    """
    key = base
    while True:
        existing = await session.scalar(select(Directive).where(Directive.idempotency_key == key))
        if existing is None or existing.state in UNFINISHED:
            return key, existing
        key = f"{base}:after:{existing.id}"


async def _latest_install(session: AsyncSession, installation: Installation) -> Directive | None:
    found: Directive | None = await session.scalar(
        select(Directive)
        .where(
            Directive.type == "package.install",
            Directive.params["installation_id"].astext == str(installation.id),
        )
        .order_by(Directive.id.desc())
        .limit(1)
    )
    return found


async def _check_credential(
    session: AsyncSession, installation: Installation, config: Mapping[str, Any]
) -> None:
    """NotFoundError unless each credential named in ``config`` is this installation's (trap 34)."""
    for option, kind in connection_options(installation).items():
        named = config.get(option)
        if named is not None and not await is_its_credential(session, installation, kind, named):
            raise NotFoundError(f"There is no {kind} credential {named} of this installation.")


async def is_its_credential(
    session: AsyncSession, installation: Installation, kind: str, named: str
) -> bool:
    """Whether there is a credential of this id and kind of this installation."""
    found = await session.get(IntegrationCredential, UUID(named))
    return found is not None and (found.installation_id, found.kind) == (installation.id, kind)
