"""The index table of scheduled slots, shared by all tenants, each seeing its own rows."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import Date, FetchedValue
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import PlatformBase, SetByDatabase


class ScheduleSlot(PlatformBase):
    """One date's slot of one installation: when it is due, and the window that it closes."""

    __tablename__ = "schedule_slots"
    # The role of the tenant's transaction, by the column's default.
    tenant_schema: Mapped[str] = mapped_column(primary_key=True, server_default=FetchedValue())
    installation_id: Mapped[UUID] = mapped_column(primary_key=True)
    local_date: Mapped[date] = mapped_column(Date, primary_key=True)
    due_at: Mapped[datetime]
    window_start: Mapped[datetime]
    window_end: Mapped[datetime]
    zone: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="planned")
    directive_id: Mapped[UUID | None]
    settled_at: Mapped[datetime | None]
    created_at: Mapped[SetByDatabase]
