"""Tables of wrapped data keys (the platform's) and of sealed credentials (each tenant's)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import PlatformBase, SetByDatabase, TenantBase
from fleetprompt.packages.models import Installation
from fleetprompt.tenants.models import Organization


class StoredDataKey(PlatformBase):
    """A tenant's data key, wrapped under the master key; one at a time is not retired."""

    __tablename__ = "data_keys"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey(Organization.id, ondelete="CASCADE"))
    master_key_id: Mapped[str]
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[SetByDatabase]
    retired_at: Mapped[datetime | None]


class IntegrationCredential(TenantBase):
    """A sealed secret of an installation; ``key_id`` names the data key that opens it."""

    __tablename__ = "integration_credentials"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    installation_id: Mapped[UUID] = mapped_column(ForeignKey(Installation.id, ondelete="CASCADE"))
    kind: Mapped[str]
    label: Mapped[str]
    state: Mapped[str]
    key_id: Mapped[UUID]
    nonce: Mapped[bytes] = mapped_column(LargeBinary)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[SetByDatabase]
    checked_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
