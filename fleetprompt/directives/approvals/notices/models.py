"""The table of where a tenant's notices go, in each tenant's schema."""

from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase
from fleetprompt.packages.models import Installation


class ApprovalNotices(TenantBase):
    """The tenant's setting: no row, or this one. ``channel`` None is the webhook's own channel."""

    __tablename__ = "approval_notices"
    single: Mapped[bool] = mapped_column(primary_key=True, server_default="true")
    enabled: Mapped[bool]
    installation_id: Mapped[UUID] = mapped_column(ForeignKey(Installation.id, ondelete="CASCADE"))
    channel: Mapped[str | None]
    remind_before_seconds: Mapped[int | None]
    most_per_hour: Mapped[int]
    changed_by: Mapped[str]
    changed_at: Mapped[SetByDatabase]
