"""Credentials at rest: sealed with the tenant's data key, opened only where they are used.

Data keys are the platform's rows and credentials the tenant's, so opening one takes a transaction
of each kind; neither alone, nor a copy of both, is enough without the master key.
"""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.errors import NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.cipher import (
    DataKey,
    Sealed,
    SealError,
    WrappedDataKey,
    decrypt,
    encrypt,
    new_data_key,
    unwrap,
    wrap,
)
from fleetprompt.vault.master_key import MasterKey
from fleetprompt.vault.models import IntegrationCredential, StoredDataKey
from fleetprompt.vault.secret import Secret

CREDENTIAL_FIELD = "integration_credentials.secret"

_DATA_KEY = text(
    "SELECT id AS key_id, organization_id AS tenant, master_key_id, nonce, wrapped AS ciphertext"
    " FROM fleetprompt.data_keys WHERE organization_id = :tenant AND id = :id"
)


@dataclass(frozen=True, slots=True)
class Vault:
    """The tenants' secrets, under one master key."""

    database: Database
    master_key: MasterKey

    async def current_key(self, tenant: Tenant) -> DataKey:
        """The data key that seals the tenant's new secrets, made at first use.

        Two that make it at once agree on the one that was committed first.
        """
        async with self.database.platform() as session:
            current = select(StoredDataKey).where(
                StoredDataKey.organization_id == tenant.id, StoredDataKey.retired_at.is_(None)
            )
            stored = await session.scalar(current)
            if stored is None:
                made = wrap(self.master_key, new_data_key(tenant.id))
                await session.execute(
                    insert(StoredDataKey)
                    .values(
                        id=made.key_id,
                        organization_id=tenant.id,
                        master_key_id=made.master_key_id,
                        nonce=made.nonce,
                        wrapped=made.ciphertext,
                    )
                    .on_conflict_do_nothing()
                )
                stored = (await session.scalars(current)).one()
            return self._unwrapped(stored, tenant)

    async def key(self, tenant: Tenant, key_id: UUID) -> DataKey:
        """The tenant's data key of this id, retired or not; SealError if it was shredded."""
        rows = await self.database.statement(_DATA_KEY, {"tenant": tenant.id, "id": key_id})
        if not rows:
            raise SealError(
                f"Data key {key_id} of tenant {tenant.id} is gone; so is what it sealed."
            )
        return unwrap(self.master_key, WrappedDataKey(**rows[0]._mapping), tenant=tenant.id)

    async def open_credential(self, tenant: Tenant, credential_id: UUID) -> Secret:
        """A credential in clear; NotFoundError for one that is not this tenant's."""
        async with self.database.tenant(tenant.schema) as session:
            credential = await get_credential(session, credential_id)
        return await self.opened(tenant, credential)

    async def opened(self, tenant: Tenant, credential: IntegrationCredential) -> Secret:
        """A credential of this tenant that was read before, in clear."""
        key = await self.key(tenant, credential.key_id)
        return decrypt(
            key,
            Sealed(credential.key_id, credential.nonce, credential.ciphertext),
            tenant=tenant.id,
            record_id=credential.id,
            field=CREDENTIAL_FIELD,
        )

    def _unwrapped(self, stored: StoredDataKey, tenant: Tenant) -> DataKey:
        wrapped = WrappedDataKey(
            key_id=stored.id,
            tenant=stored.organization_id,
            master_key_id=stored.master_key_id,
            nonce=stored.nonce,
            ciphertext=stored.wrapped,
        )
        return unwrap(self.master_key, wrapped, tenant=tenant.id)


async def store_credential(
    session: AsyncSession,
    tenant: Tenant,
    data_key: DataKey,
    *,
    installation_id: UUID,
    kind: str,
    label: str,
    secret: Secret,
) -> IntegrationCredential:
    """Seal a secret and keep it, unverified, for one installation.

    ``label`` is what people see of it, such as the server's host; never a part of the secret.
    """
    credential_id = new_id()
    sealed = encrypt(
        data_key, secret, tenant=tenant.id, record_id=credential_id, field=CREDENTIAL_FIELD
    )
    credential = IntegrationCredential(
        id=credential_id,
        installation_id=installation_id,
        kind=kind,
        label=label,
        state="unverified",
        key_id=sealed.key_id,
        nonce=sealed.nonce,
        ciphertext=sealed.ciphertext,
    )
    session.add(credential)
    await session.flush()
    return credential


async def get_credential(session: AsyncSession, credential_id: UUID) -> IntegrationCredential:
    """The tenant's credential of this id, still sealed; NotFoundError otherwise."""
    found = await session.get(IntegrationCredential, credential_id)
    if found is None:
        raise NotFoundError(f"There is no credential {credential_id}.")
    return found
