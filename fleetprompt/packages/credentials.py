"""Connecting an installation: the secret is sealed at once, then tried without any effect; so later."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.clock import Clock, system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.errors import ConflictError, InvalidError, NotFoundError
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages import registry
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import (
    Connectable,
    Operations,
    PostingOperations,
    Verification,
    connectables_of,
    operations_of,
)
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
from fleetprompt.vault.cipher import SealError
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
    kind: str | None = None,
    clock: Clock = system_clock,
) -> tuple[Installation, Verification]:
    """Keep a credential for an installation in place of the one of its kind before, and try it.

    Nothing is posted. The secret is sealed and committed before the other side is asked, and is in
    no directive, signal or log. A secret that cannot be one is an InvalidError and is not kept; one
    that the other side refuses is kept, and the installation ``degraded`` with the reason. ``kind`` is
    the package's first kind unless given; InvalidError for one that it does not connect with.
    """
    require_administrator(actor)
    async with database.tenant(tenant.schema) as session:
        operations = _operations(await get_installation(session, installation_id))
    kind = kind or operations.credential_kind
    connectable = _connectable(operations, kind)
    label = connectable.label(secret, settings)
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
            kind=kind,
            label=label,
            secret=secret,
        )
        await session.execute(
            delete(IntegrationCredential).where(
                IntegrationCredential.installation_id == installation_id,
                IntegrationCredential.kind == kind,
                IntegrationCredential.id != credential.id,
            )
        )
        config = {**installation.config, connectable.option: str(credential.id)}
        installation.config = config
        installation.config_checksum = registry.config_checksum(config)
        await plan_slots(session, installation, clock())
    verification = await connectable.verify(client, secret, config)
    async with database.tenant(tenant.schema) as session:
        await _record(session, tenant, installation_id, credential.id, verification)
        installation = await get_installation(session, installation_id)
    return installation, verification


@dataclass(frozen=True, slots=True)
class Finding:
    """What looking at one connection gave."""

    kind: str
    label: str
    verification: Verification


async def check(
    database: Database,
    vault: Vault,
    client: OutboundClient,
    tenant: Tenant,
    installation_id: UUID,
    actor: Actor,
) -> list[Finding]:
    """Try every connection that the installation's configuration uses, without any effect there.

    What is found is shown on credentials and installation, as after connecting. ConflictError where
    nothing is connected.
    """
    require_administrator(actor)
    async with database.tenant(tenant.schema) as session:
        installation = await get_installation(session, installation_id)
        operations = _operations(installation)
        named = await _used_credentials(session, installation, operations)
    if not named:
        raise ConflictError("Nothing is connected yet.")
    findings = []
    for credential in named:
        try:
            secret = await vault.open_credential(tenant, credential.id)
        except (SealError, NotFoundError) as error:
            words = f"The stored secret cannot be used: {error.detail} Connect again."
            verification = Verification("failing", "auth", words)
        else:
            verify = _connectable(operations, credential.kind).verify
            verification = await verify(client, secret, installation.config)
        findings.append(Finding(credential.kind, credential.label, verification))
    # A good connection must not hide a bad one, so those are recorded last.
    for credential, finding in sorted(
        zip(named, findings, strict=True),
        key=lambda pair: pair[1].verification.state != "connected",
    ):
        async with database.tenant(tenant.schema) as session:
            await _record(session, tenant, installation_id, credential.id, finding.verification)
    return findings


async def _used_credentials(
    session: AsyncSession, installation: Installation, operations: Operations
) -> list[IntegrationCredential]:
    used = set(connectables_of(operations))
    if isinstance(operations, PostingOperations):
        used = set(operations.used_kinds(installation.config))
    found = await session.scalars(
        select(IntegrationCredential)
        .where(
            IntegrationCredential.installation_id == installation.id,
            IntegrationCredential.kind.in_(used),
        )
        .order_by(IntegrationCredential.id)
    )
    return list(found)


def _connectable(operations: Operations, kind: str) -> Connectable:
    offered = connectables_of(operations)
    if kind not in offered:
        names = ", ".join(sorted(offered))
        raise InvalidError(
            f"It does not connect with {kind!r:.80}.",
            errors=[{"pointer": "/kind", "detail": f"one of: {names}"}],
        )
    return offered[kind]


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
