"""The table of installations, in each tenant's schema."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase


class Installation(TenantBase):
    """A package in a tenant: at most one of each. Errors are in plain words, without secrets."""

    __tablename__ = "installations"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    package: Mapped[str]
    version: Mapped[str]
    state: Mapped[str]
    config: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    config_checksum: Mapped[str]
    last_error_kind: Mapped[str | None]
    last_error: Mapped[str | None]
    last_error_at: Mapped[datetime | None]
    last_success_at: Mapped[datetime | None]
    created_at: Mapped[SetByDatabase]
    updated_at: Mapped[SetByDatabase]
