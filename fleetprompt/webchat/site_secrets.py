"""A site's secrets: made, sealed with the tenant's data key, replaced.

``token`` signs visitors' tokens and challenges and is what rotation replaces; ``visitor`` signs visitors'
own secrets and stays, so that a rotation makes strangers of nobody; ``identity`` is shared with the
site's own server.
"""

import secrets
from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.cipher import DataKey, Sealed, decrypt, encrypt
from fleetprompt.vault.secret import Secret
from fleetprompt.webchat.models import ChatSiteSecret
from fleetprompt.webchat.signing import decode, encode

Purpose = Literal["token", "visitor", "identity"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
SECRET_FIELD = "website_chat_site_secrets.secret"  # noqa: S105 - a field name
_BYTES = 32


async def make_secret(
    session: AsyncSession,
    tenant: Tenant,
    data_key: DataKey,
    site_id: UUID,
    purpose: Purpose,
    secret_id: UUID,
) -> None:
    """A new random secret of a site under this id."""
    sealed = encrypt(
        data_key,
        Secret(encode(secrets.token_bytes(_BYTES))),
        tenant=tenant.id,
        record_id=secret_id,
        field=SECRET_FIELD,
    )
    session.add(
        ChatSiteSecret(
            id=secret_id,
            site_id=site_id,
            purpose=purpose,
            key_id=sealed.key_id,
            nonce=sealed.nonce,
            ciphertext=sealed.ciphertext,
        )
    )
    await session.flush()


async def retire_secret(
    session: AsyncSession, site_id: UUID, purpose: Purpose, now: datetime
) -> None:
    """Take the current secret out of use; what it signed before holds for its own time."""
    await session.execute(
        update(ChatSiteSecret)
        .where(
            ChatSiteSecret.site_id == site_id,
            ChatSiteSecret.purpose == purpose,
            ChatSiteSecret.retired_at.is_(None),
        )
        .values(retired_at=now)
    )


def open_secret(data_key: DataKey, tenant: Tenant, stored: ChatSiteSecret) -> bytes:
    """The secret in clear; keep it out of every message."""
    sealed = Sealed(stored.key_id, stored.nonce, stored.ciphertext)
    return decode(
        decrypt(
            data_key, sealed, tenant=tenant.id, record_id=stored.id, field=SECRET_FIELD
        ).reveal()
    )
