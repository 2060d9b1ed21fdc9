"""Credentials in the database: sealed per tenant and record, never in clear."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.packages.models import Installation
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.cipher import SealError
from fleetprompt.vault.master_key import MasterKey, load_master_key
from fleetprompt.vault.secret import Secret
from fleetprompt.vault.service import Vault, get_credential, store_credential

SECRET = "https://chat.example.org/hooks/canarycanarycanarycanary12"


@pytest.fixture
def vault(database: Database, settings: Settings) -> Vault:
    """The vault under the test platform's master key."""
    return Vault(database, load_master_key(settings))


async def stored(vault: Vault, tenant: Tenant, secret: str = SECRET) -> UUID:
    """The id of a credential of an installation of this tenant."""
    key = await vault.current_key(tenant)
    async with vault.database.tenant(tenant.schema) as session:
        installation = Installation(
            id=new_id(),
            package=f"p{new_id().hex}",
            version="1",
            state="installed",
            config={},
            config_checksum="",
        )
        session.add(installation)
        await session.flush()
        credential = await store_credential(
            session, tenant, key, installation_id=installation.id, kind="mattermost",
            label="chat.example.org", secret=Secret(secret),
        )  # fmt: skip
        return credential.id


async def test_what_is_stored_is_opened_and_is_not_in_clear(vault: Vault, tenant: Tenant) -> None:
    credential_id = await stored(vault, tenant)
    assert (await vault.open_credential(tenant, credential_id)).reveal() == SECRET
    async with vault.database.tenant(tenant.schema) as session:
        credential = await get_credential(session, credential_id)
        row = await session.scalar(text("SELECT t::text FROM integration_credentials t"))
    assert SECRET.encode() not in credential.ciphertext
    assert row is not None
    assert SECRET.encode().hex() not in row
    assert credential.state == "unverified"


async def test_a_ciphertext_moved_to_another_row_or_tenant_does_not_open(
    vault: Vault, tenant: Tenant, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    """Trap T26."""
    first = await stored(vault, tenant)
    second = await stored(
        vault, tenant, "https://chat.example.org/hooks/zzzzzzzzzzzzzzzzzzzzzzzzzz"
    )
    async with vault.database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE integration_credentials AS b SET nonce = a.nonce, ciphertext = a.ciphertext"
                " FROM integration_credentials AS a WHERE a.id = :a AND b.id = :b"
            ),
            {"a": first, "b": second},
        )
    with pytest.raises(SealError):
        await vault.open_credential(tenant, second)
    other = await new_tenant()
    theirs = await stored(vault, other)
    async with vault.database.tenant(tenant.schema) as session:
        mine = await get_credential(session, first)
    async with vault.database.tenant(other.schema) as session:
        for key_id in (mine.key_id, (await get_credential(session, theirs)).key_id):
            await session.execute(
                text(
                    "UPDATE integration_credentials SET nonce = :nonce, ciphertext = :ciphertext,"
                    " key_id = :key_id"
                ),
                {"nonce": mine.nonce, "ciphertext": mine.ciphertext, "key_id": key_id},
            )
    with pytest.raises(SealError):
        await vault.open_credential(other, theirs)


async def test_20_first_uses_at_once_agree_on_one_data_key(vault: Vault, tenant: Tenant) -> None:
    keys = await asyncio.gather(*(vault.current_key(tenant) for _ in range(20)))
    assert len({key.key_id for key in keys}) == 1


async def test_a_retired_key_still_opens_what_it_sealed(vault: Vault, tenant: Tenant) -> None:
    credential_id = await stored(vault, tenant)
    former = await vault.current_key(tenant)
    async with vault.database.platform() as session:
        await session.execute(
            text("UPDATE fleetprompt.data_keys SET retired_at = now() WHERE id = :id"),
            {"id": former.key_id},
        )
    assert (await vault.current_key(tenant)).key_id != former.key_id
    assert (await vault.open_credential(tenant, credential_id)).reveal() == SECRET


async def test_without_its_data_key_a_credential_is_gone(vault: Vault, tenant: Tenant) -> None:
    """Deleting the wrapped keys shreds everything that they sealed, wherever copies are."""
    credential_id = await stored(vault, tenant)
    async with vault.database.platform() as session:
        await session.execute(
            text("DELETE FROM fleetprompt.data_keys WHERE organization_id = :id"),
            {"id": tenant.id},
        )
    with pytest.raises(SealError, match="gone"):
        await vault.open_credential(tenant, credential_id)


async def test_under_another_master_key_nothing_opens(vault: Vault, tenant: Tenant) -> None:
    credential_id = await stored(vault, tenant)
    with pytest.raises(SealError):
        await Vault(vault.database, MasterKey(bytes(range(32)))).open_credential(
            tenant, credential_id
        )


async def test_another_tenants_credential_is_not_found(
    vault: Vault, tenant: Tenant, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    """Trap 34."""
    credential_id = await stored(vault, tenant)
    with pytest.raises(NotFoundError):
        await vault.open_credential(await new_tenant(), credential_id)
