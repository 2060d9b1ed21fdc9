"""The tables ``signals`` and ``signal_keys`` of every tenant."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Computed
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase


class Signal(TenantBase):
    """Something that happened (architecture §4); never changed once stored."""

    __tablename__ = "signals"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    source: Mapped[str]
    occurred_at: Mapped[datetime]
    subject_type: Mapped[str | None]
    subject_id: Mapped[str | None]
    data: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    # `metadata` is taken by SQLAlchemy's own attribute.
    context: Mapped[dict[str, Any]] = mapped_column("metadata", server_default="{}")
    correlation_id: Mapped[str | None] = mapped_column(Computed("metadata ->> 'correlation_id'"))
    causation_id: Mapped[str | None] = mapped_column(Computed("metadata ->> 'causation_id'"))
    dedupe_key: Mapped[str | None]
    source_event_id: Mapped[str | None]
    inserted_at: Mapped[SetByDatabase]
    txid: Mapped[int] = mapped_column(server_default="pg_current_xact_id()::text::bigint")


class SignalKey(TenantBase):
    """A hash of a dedupe key, kept for ever."""

    __tablename__ = "signal_keys"
    key: Mapped[UUID] = mapped_column(primary_key=True)
    signal_id: Mapped[UUID]
