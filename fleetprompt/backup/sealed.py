"""Sealed secrets on their way into another tenant: opened with the old data key, sealed with the new one.

What a secret is sealed with names its tenant, so that a copy of the ciphertext would open for nobody.
"""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from psycopg import AsyncConnection, sql

from fleetprompt.backup.archive import Manifest
from fleetprompt.errors import ConflictError
from fleetprompt.vault.cipher import DataKey, Sealed, WrappedDataKey, decrypt, encrypt, unwrap
from fleetprompt.vault.master_key import MasterKey
from fleetprompt.vault.service import CREDENTIAL_FIELD
from fleetprompt.webchat.site_secrets import SECRET_FIELD

# Every table of a tenant that holds something sealed, and the field that it is sealed for.
SEALED: Mapping[str, str] = {
    "integration_credentials": CREDENTIAL_FIELD,
    "website_chat_site_secrets": SECRET_FIELD,
}


def check_master_key(manifest: Manifest, master_key: MasterKey) -> None:
    """ConflictError, before anything is made, if the loaded key cannot open what the backup holds."""
    if manifest.master_key_id != master_key.key_id and any(
        table.rows for table in manifest.tables if table.name in SEALED
    ):
        raise ConflictError(
            f"The backup's credentials are sealed under master key {manifest.master_key_id}, and "
            f"{master_key.key_id} is loaded. Load that key, or leave the credentials out with "
            "--without-secrets and enter them again afterwards."
        )


async def seal_anew(
    connection: AsyncConnection,
    schema: str,
    former_tenant: UUID,
    former_keys: Mapping[UUID, DataKey],
    tenant: UUID,
    data_key: DataKey,
) -> int:
    """Seal every secret of the schema for the new tenant; how many. SealError if one does not open."""
    sealed_anew = 0
    for table, field in SEALED.items():
        place = sql.Identifier(schema, table)
        rows = await connection.execute(
            sql.SQL("SELECT id, key_id, nonce, ciphertext FROM {}").format(place)
        )
        for id_, key_id, nonce, ciphertext in await rows.fetchall():
            secret = decrypt(
                former_keys[key_id],
                Sealed(key_id, nonce, ciphertext),
                tenant=former_tenant,
                record_id=id_,
                field=field,
            )
            sealed = encrypt(data_key, secret, tenant=tenant, record_id=id_, field=field)
            await connection.execute(
                sql.SQL(
                    "UPDATE {} SET key_id = %s, nonce = %s, ciphertext = %s WHERE id = %s"
                ).format(place),
                (sealed.key_id, sealed.nonce, sealed.ciphertext, id_),
            )
            sealed_anew += 1
    return sealed_anew


def former_data_keys(folder: Path, tenant: UUID, master_key: MasterKey) -> dict[UUID, DataKey]:
    """The backup's data keys by their ids, unwrapped; SealError if one is not this master key's."""
    found = {}
    for line in (folder / "keys" / "data_keys").read_text().splitlines():
        id_, master_key_id, nonce, wrapped = line.split("\t")
        key_id = UUID(id_)
        stored = WrappedDataKey(key_id, tenant, master_key_id, _bytes(nonce), _bytes(wrapped))
        found[key_id] = unwrap(master_key, stored, tenant=tenant)
    return found


def _bytes(copied: str) -> bytes:
    r"""A bytea as COPY writes it: ``\\x`` and hexadecimal digits."""
    return bytes.fromhex(copied.removeprefix("\\\\x"))
