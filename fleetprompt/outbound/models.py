"""The ledger's table, in each tenant's schema."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase
from fleetprompt.directives.models import Directive
from fleetprompt.executions.models import Execution


class OutboundMessage(TenantBase):
    """One message that leaves the platform, from the intention to what is known of its delivery."""

    __tablename__ = "outbound_messages"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    dedupe_key: Mapped[str]
    provider: Mapped[str]
    destination: Mapped[str]
    state: Mapped[str]
    content_sha256: Mapped[str]
    attempt: Mapped[int] = mapped_column(server_default="0")
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    sending_at: Mapped[datetime | None]
    settled_at: Mapped[datetime | None]
    retry_after: Mapped[datetime | None]
    remote_id: Mapped[str | None]
    remote_place: Mapped[str | None]
    remote_author: Mapped[str | None]
    remote_time: Mapped[datetime | None]
    absent_at: Mapped[datetime | None]
    permalink: Mapped[str | None]
    proof: Mapped[str | None]
    resolution: Mapped[str | None]
    resolved_by: Mapped[UUID | None]
    resolved_at: Mapped[datetime | None]
    error_kind: Mapped[str | None]
    error_message: Mapped[str | None]
    correlation_id: Mapped[str | None]
    directive_id: Mapped[UUID | None] = mapped_column(ForeignKey(Directive.id, ondelete="SET NULL"))
    execution_id: Mapped[UUID | None] = mapped_column(ForeignKey(Execution.id, ondelete="SET NULL"))
    created_at: Mapped[SetByDatabase]
