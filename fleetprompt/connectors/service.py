"""Making, reading and revoking a tenant's connectors."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.connectors.expectations import PACKAGE
from fleetprompt.connectors.models import Connector, WatchedConnector
from fleetprompt.connectors.pairing import IssuedCode, Pairing, correlation_of, end_code, end_keys
from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.errors import ConflictError, InvalidError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.packages.models import Installation
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant

LABEL_LIMIT = 100
MOST_AT_ONCE = 200
# What waits for a connector; an attempt under way is the connector's to report, or nobody knows.
_WAITING = ("requested", "awaiting_approval", "pending")


async def create(
    database: Database, pairing: Pairing, tenant: Tenant, label: str, actor: Actor
) -> tuple[Connector, IssuedCode]:
    """A connector that waits to be paired, and the code for it."""
    connector = Connector(id=new_id(), package=PACKAGE, label=_checked(label), created_by=actor.id)
    async with database.tenant(tenant.schema) as session:
        session.add(connector)
        await session.flush()
        await session.refresh(connector)
    return connector, await pairing.issue(tenant, connector.id, connector.label)


def _checked(label: str) -> str:
    """A label that can be shown anywhere: one line, nothing that hides or turns text around."""
    label = label.strip()
    if not 0 < len(label) <= LABEL_LIMIT or not label.isprintable():
        raise InvalidError(
            "This label cannot be used.",
            errors=[{"pointer": "/label", "detail": f"1 to {LABEL_LIMIT} printable characters"}],
        )
    return label


async def new_code(
    database: Database, pairing: Pairing, tenant: Tenant, connector_id: UUID
) -> tuple[Connector, IssuedCode]:
    """Another code; the one before is worthless. A key goes on until the new code is exchanged."""
    connector = await _not_revoked(database, tenant, connector_id)
    issued = await pairing.issue(tenant, connector.id, connector.label)
    try:
        # Revoked while the code was made: nobody has seen it yet, and nobody shall.
        return await _not_revoked(database, tenant, connector_id, lock=True), issued
    except ConflictError:
        async with database.platform() as session:
            await end_code(session, tenant, connector_id)
        raise


async def _not_revoked(
    database: Database, tenant: Tenant, connector_id: UUID, *, lock: bool = False
) -> Connector:
    async with database.tenant(tenant.schema) as session:
        connector = await get(session, connector_id, lock=lock)
    if connector.state == "revoked":
        raise ConflictError("This connector was revoked. Make another one.")
    return connector


async def revoke(
    database: Database,
    tenant: Tenant,
    connector_id: UUID,
    actor: Actor,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Connector:
    """End a connector's key and code, and cancel what waits for it. Again is no error.

    The key ends first: whatever happens then, the connector is out. It ends once more at last, since a
    code may have been made and exchanged before the connector was known to be revoked.
    """
    async with database.tenant(tenant.schema) as session:
        await get(session, connector_id)
    await _lock_out(database, tenant, connector_id)
    async with database.tenant(tenant.schema) as session:
        connector = await get(session, connector_id, lock=True)
        await _end(session, tenant, connector, actor, types)
        await session.refresh(connector)
    await _lock_out(database, tenant, connector_id)
    return connector


async def revoke_all(
    session: AsyncSession, database: Database, tenant: Tenant, actor: Actor
) -> None:
    """Revoke every connector of a tenant in the caller's transaction; keys and codes end before it does.

    Codes that are being made at the same time wait for the end of that transaction (``new_code``).
    """
    left = await session.scalars(
        select(Connector)
        .where(Connector.state != "revoked")
        .order_by(Connector.id)
        .with_for_update()
    )
    for connector in left.all():
        await _lock_out(database, tenant, connector.id)
        await _end(session, tenant, connector, actor, None)


async def _end(
    session: AsyncSession,
    tenant: Tenant,
    connector: Connector,
    actor: Actor,
    types: Mapping[str, AnyDirectiveType] | None,
) -> None:
    if connector.state != "revoked":
        connector.state, connector.revoked_at = "revoked", func.clock_timestamp()
        await session.flush()
        await unwatch(session, tenant, [connector.id])
        await _tell_revoked(session, connector, actor)
    await _cancel_waiting(session, tenant, connector.id, actor, types)


async def _lock_out(database: Database, tenant: Tenant, connector_id: UUID) -> None:
    async with database.platform() as session:
        # In this order: an exchange under way either finds no code, or its key is among those ended.
        await end_code(session, tenant, connector_id)
        await end_keys(session, tenant, connector_id)


async def _tell_revoked(session: AsyncSession, connector: Connector, actor: Actor) -> None:
    await emit(
        session,
        NewSignal(
            type="connector.revoked",
            subject_type="connector",
            subject_id=str(connector.id),
            data={
                "connector_id": str(connector.id),
                "label": connector.label,
                "actor": actor.id,
            },
            correlation_id=correlation_of(connector.id),
        ),
    )


async def _cancel_waiting(
    session: AsyncSession,
    tenant: Tenant,
    connector_id: UUID,
    actor: Actor,
    types: Mapping[str, AnyDirectiveType] | None,
) -> None:
    """Call off what the connector can never fetch; who revokes it need not be one who may ask for it."""
    waiting = await session.scalars(
        select(Directive.id)
        .where(Directive.target == str(connector_id), Directive.state.in_(_WAITING))
        .order_by(Directive.id)
    )
    by_revoking = Actor(actor.id, "platform")
    for directive_id in waiting.all():
        await directives.cancel(session, tenant, directive_id, by_revoking, types=types)


async def get(session: AsyncSession, connector_id: UUID, *, lock: bool = False) -> Connector:
    """The tenant's connector of this id, its row locked if asked; NotFoundError otherwise."""
    query = select(Connector).where(Connector.id == connector_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found: Connector | None = await session.scalar(query)
    if found is None:
        raise NotFoundError(f"There is no connector {connector_id}.")
    return found


async def list_connectors(
    session: AsyncSession, *, before: UUID | None = None, limit: int = 50
) -> list[Connector]:
    """Connectors, newest first; ``before`` is the last id of the page before."""
    query = select(Connector).order_by(Connector.id.desc()).limit(min(limit, MOST_AT_ONCE))
    if before is not None:
        query = query.where(Connector.id < before)
    return list(await session.scalars(query))


async def installation_ids(session: AsyncSession) -> dict[str, UUID]:
    """The tenant's installations by package: a package has at most one."""
    found = await session.execute(select(Installation.package, Installation.id))
    return {row.package: row.id for row in found}


async def unwatch(session: AsyncSession, tenant: Tenant, connector_ids: list[UUID]) -> None:
    """No longer expect to hear of these."""
    await session.execute(
        delete(WatchedConnector).where(
            WatchedConnector.tenant_schema == tenant.schema,
            WatchedConnector.connector_id.in_(connector_ids),
        )
    )
