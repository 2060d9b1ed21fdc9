"""Connecting an installation: the secret is sealed at once, then tried without any effect."""

from uuid import UUID

from sqlalchemy import delete, func, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.errors import ConflictError
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages import registry
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import Operations, Verification, operations_of
from fleetprompt.packages.scheduling import plan_slots
from fleetprompt.packages.service import (
    INSTALLED,
    correlation_of,
    get_installation,
    note_trouble,
    require_administrator,
)
from fleetprompt.settings import Settings
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.models import IntegrationCredential
from fleetprompt.vault.secret import Secret
from fleetprompt.vault.service import Vault, store_credential


async def connect(
    database: Database,
    vault: Vault,
    client: OutboundClient,
    settings: Settings,
    tenant: Tenant,
    installation_id: UUID,
    secret: Secret,
    actor: Actor,
    *,
    clock: Clock = system_clock,
) -> tuple[Installation, Verification]:
    """Keep a credential for an installation in place of the one before, and try it.

    Nothing is posted. The secret is sealed and committed before the other side is asked, and is in
    no directive, signal or log. A secret that cannot be one is an InvalidError and is not kept; one
    that the other side refuses is kept, and the installation ``degraded`` with the reason.
    """
    require_administrator(actor)
    async with database.tenant(tenant.schema) as session:
        operations = _operations(await get_installation(session, installation_id))
    label = operations.label(secret, settings)
    data_key = await vault.current_key(tenant)
    async with database.tenant(tenant.schema) as session:
        installation = await get_installation(session, installation_id, lock=True)
        if installation.state not in INSTALLED:
            raise ConflictError(
                f"The installation is {installation.state}; it cannot be connected."
            )
        credential = await store_credential(
            session,
            tenant,
            data_key,
            installation_id=installation_id,
            kind=operations.credential_kind,
            label=label,
            secret=secret,
        )
        await session.execute(
            delete(IntegrationCredential).where(
                IntegrationCredential.installation_id == installation_id,
                IntegrationCredential.kind == operations.credential_kind,
                IntegrationCredential.id != credential.id,
            )
        )
        config = {**installation.config, operations.credential_option: str(credential.id)}
        installation.config = config
        installation.config_checksum = registry.config_checksum(config)
        await plan_slots(session, installation, clock())
    verification = await operations.verify(client, secret, config)
    async with database.tenant(tenant.schema) as session:
        await _record(session, tenant, installation_id, credential.id, verification)
        installation = await get_installation(session, installation_id)
    return installation, verification


async def _record(
    session: AsyncSession,
    tenant: Tenant,
    installation_id: UUID,
    credential_id: UUID,
    verification: Verification,
) -> None:
    """Show what the trial gave on the credential, if it is still the current one."""
    installation = await get_installation(session, installation_id, lock=True)
    changed = await session.scalar(
        update(IntegrationCredential)
        .where(IntegrationCredential.id == credential_id)
        .values(
            state=verification.state,
            checked_at=func.clock_timestamp(),
            last_error=verification.message if verification.state != "connected" else None,
        )
        .returning(IntegrationCredential.label)
    )
    if changed is None:
        return
    if verification.state != "connected":
        await note_trouble(
            session,
            installation_id,
            verification.error_kind or "unknown",
            verification.message or "",
        )
        return
    installation.state = "connected"
    installation.updated_at = func.clock_timestamp()
    await emit(
        session,
        NewSignal(
            type="integration.credential.connected",
            subject_type="installation",
            subject_id=str(installation_id),
            data={
                "package": installation.package,
                "credential_id": str(credential_id),
                "label": changed,
            },
            correlation_id=correlation_of(tenant, installation_id),
        ),
    )
    await session.flush()


def _operations(installation: Installation) -> Operations:
    operations = operations_of(installation.package)
    if operations is None:
        raise ConflictError(f"{installation.package} connects to nothing.")
    return operations
