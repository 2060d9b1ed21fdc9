"""Tables: connectors in each tenant's schema; pairing codes and tries at them in the platform's."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import PlatformBase, SetByDatabase, TenantBase
from fleetprompt.tenants.models import Organization


class Connector(TenantBase):
    """A connector and what it last said of itself. What it says is kept by the database (t0008)."""

    __tablename__ = "connectors"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    package: Mapped[str]
    label: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="requested")
    account: Mapped[str | None]
    device_id: Mapped[str | None]
    version: Mapped[str | None]
    paired_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    heartbeat: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    troubled: Mapped[bool] = mapped_column(server_default="false")
    last_error_kind: Mapped[str | None]
    last_error_code: Mapped[str | None]
    last_error_place: Mapped[str | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]
    created_by: Mapped[str]
    created_at: Mapped[SetByDatabase]
    revoked_at: Mapped[datetime | None]


class PairingCode(PlatformBase):
    """A code that may be exchanged once; only keyed hashes of it are kept."""

    __tablename__ = "pairing_codes"
    __table_args__ = (UniqueConstraint("organization_id", "connector_id"),)
    finder_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    code_hash: Mapped[bytes] = mapped_column(LargeBinary)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey(Organization.id, ondelete="CASCADE"))
    connector_id: Mapped[UUID]
    label: Mapped[str]
    expires_at: Mapped[datetime]


class PairingTries(PlatformBase):
    """How often a code's first part was tried until a time."""

    __tablename__ = "pairing_tries"
    finder_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    tries: Mapped[int]
    ends_at: Mapped[datetime]


class WatchedConnector(PlatformBase):
    """A connector that is expected to be heard of, and when to look whether it was."""

    __tablename__ = "connectors_watched"
    tenant_schema: Mapped[str] = mapped_column(primary_key=True)
    connector_id: Mapped[UUID] = mapped_column(primary_key=True)
    look_at: Mapped[datetime]
