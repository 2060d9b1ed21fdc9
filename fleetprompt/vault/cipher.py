"""Sealing secrets: a data key for each tenant, wrapped under the master key.

AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce throughout. What a ciphertext belongs to
is authenticated with it: a sealed value opens only for the tenant, record, field and data key it
was sealed for, a wrapped data key only for its tenant and id (research/platform.md, T26).
Deleting a tenant's wrapped data keys makes all its sealed values unreadable, in backups too.

Nothing here touches a database; every function depends on its arguments and fresh randomness only.
"""

import secrets
from dataclasses import dataclass, field
from typing import NoReturn
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetprompt.errors import FleetPromptError
from fleetprompt.ids import new_id
from fleetprompt.vault.master_key import MasterKey
from fleetprompt.vault.secret import Secret

_KEY_BYTES = 32
_NONCE_BYTES = 12
_WRAP_PURPOSE = "data-key-wrap"


class SealError(FleetPromptError):
    """A sealed value or a wrapped data key does not open.

    It was moved between tenants, records or fields, altered, or belongs to another key. The
    message names ids, never content; the problem type stays ``internal``.
    """

    title = "A stored secret cannot be opened"


class DataKey:
    """A tenant's key in clear, in memory only; printing shows its id, pickling is refused."""

    __slots__ = ("_key", "key_id", "tenant")

    def __init__(self, key: bytes, *, key_id: UUID, tenant: UUID) -> None:
        if len(key) != _KEY_BYTES:
            raise SealError(f"A data key has {_KEY_BYTES} bytes; this one has {len(key)}.")
        self._key = key
        self.key_id = key_id
        self.tenant = tenant

    def __repr__(self) -> str:
        return f"<DataKey {self.key_id} of tenant {self.tenant}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a data key is not pickled or copied; unwrap it where it is needed")


@dataclass(frozen=True, slots=True)
class WrappedDataKey:
    """A data key as it is stored: sealed under the master key named by ``master_key_id``."""

    key_id: UUID
    tenant: UUID
    master_key_id: str
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret as it is stored: 12 bytes of nonce, the ciphertext with its 16-byte tag."""

    key_id: UUID
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def new_data_key(tenant: UUID) -> DataKey:
    """A fresh random data key for one tenant."""
    return DataKey(secrets.token_bytes(_KEY_BYTES), key_id=new_id(), tenant=tenant)


def wrap(master_key: MasterKey, data_key: DataKey) -> WrappedDataKey:
    """The data key sealed under the master key, to be stored."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    belongs_to = _wrapping_data(data_key.tenant, data_key.key_id)
    cipher = AESGCM(master_key.subkey(_WRAP_PURPOSE))
    return WrappedDataKey(
        key_id=data_key.key_id,
        tenant=data_key.tenant,
        master_key_id=master_key.key_id,
        nonce=nonce,
        ciphertext=cipher.encrypt(nonce, data_key._key, belongs_to),
    )


def unwrap(master_key: MasterKey, wrapped: WrappedDataKey, *, tenant: UUID) -> DataKey:
    """The data key in clear; ``SealError`` unless it is this tenant's and this master key's."""
    if wrapped.master_key_id != master_key.key_id:
        raise SealError(
            f"Data key {wrapped.key_id} is wrapped under master key {wrapped.master_key_id}, but "
            f"{master_key.key_id} is loaded. Load the former key, or rotate from it to this one."
        )
    key = _opened(
        master_key.subkey(_WRAP_PURPOSE),
        wrapped.nonce,
        wrapped.ciphertext,
        _wrapping_data(tenant, wrapped.key_id),
    )
    if key is None:
        raise SealError(
            f"Data key {wrapped.key_id} does not open for tenant {tenant}: it belongs to another "
            "tenant or was altered."
        )
    return DataKey(key, key_id=wrapped.key_id, tenant=tenant)


def rewrap(
    wrapped: WrappedDataKey, *, former: MasterKey, current: MasterKey, tenant: UUID
) -> WrappedDataKey:
    """The same data key wrapped under the current master key.

    One that is already under the current key is checked and returned as it is, so that an
    interrupted rotation is simply run again (research/platform.md, T27). Sealed values stay.
    """
    if wrapped.master_key_id == current.key_id:
        unwrap(current, wrapped, tenant=tenant)
        return wrapped
    return wrap(current, unwrap(former, wrapped, tenant=tenant))


def encrypt(
    data_key: DataKey, plaintext: Secret, *, tenant: UUID, record_id: UUID, field: str
) -> Sealed:
    """Seal a secret for one field of one record of the data key's tenant.

    A data key seals at most 2³² values (SP 800-38D §8.3, random nonces).
    """
    _check_tenant(data_key, tenant)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    ciphertext = AESGCM(data_key._key).encrypt(
        nonce,
        plaintext.reveal().encode(),
        _field_data(tenant, data_key.key_id, record_id, field),
    )
    return Sealed(key_id=data_key.key_id, nonce=nonce, ciphertext=ciphertext)


def decrypt(
    data_key: DataKey, sealed: Sealed, *, tenant: UUID, record_id: UUID, field: str
) -> Secret:
    """Open what ``encrypt`` sealed for the same tenant, record and field; else ``SealError``."""
    _check_tenant(data_key, tenant)
    if sealed.key_id != data_key.key_id:
        raise SealError(
            f"The value of {field!r} in record {record_id} is sealed with data key "
            f"{sealed.key_id}, not with {data_key.key_id}."
        )
    plaintext = _opened(
        data_key._key,
        sealed.nonce,
        sealed.ciphertext,
        _field_data(tenant, data_key.key_id, record_id, field),
    )
    if plaintext is None:
        raise SealError(
            f"The value of {field!r} in record {record_id} of tenant {tenant} does not open: it "
            "was sealed for another record or field, or altered. Enter the credential again."
        )
    return Secret(plaintext.decode())


def _check_tenant(data_key: DataKey, tenant: UUID) -> None:
    if data_key.tenant != tenant:
        raise SealError(
            f"Data key {data_key.key_id} belongs to tenant {data_key.tenant}, not to {tenant}."
        )


def _opened(key: bytes, nonce: bytes, ciphertext: bytes, belongs_to: bytes) -> bytes | None:
    """The plaintext, or None when the key, the associated data or the content is not the same."""
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, belongs_to)
    except (InvalidTag, ValueError):  # ValueError: a nonce cut to fewer than 8 bytes
        return None


def _wrapping_data(tenant: UUID, key_id: UUID) -> bytes:
    return b"data-key/1" + tenant.bytes + key_id.bytes


def _field_data(tenant: UUID, key_id: UUID, record_id: UUID, field: str) -> bytes:
    # Every part but the last has a fixed length: no two places give the same bytes.
    return b"field/1" + tenant.bytes + key_id.bytes + record_id.bytes + field.encode()
