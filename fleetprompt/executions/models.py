"""Tables of executions and their log lines, in each tenant's schema."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Identity, Numeric
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase
from fleetprompt.directives.models import Directive


class Execution(TenantBase):
    """One piece of work that ran or is to run; costs in US dollars."""

    __tablename__ = "executions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str]
    state: Mapped[str]
    correlation_id: Mapped[str | None]
    causation_id: Mapped[str | None]
    directive_id: Mapped[UUID | None] = mapped_column(ForeignKey(Directive.id, ondelete="SET NULL"))
    installation_id: Mapped[UUID | None]
    dagster_run_id: Mapped[str | None]
    requested_at: Mapped[SetByDatabase]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cost_usd: Mapped[Decimal | None] = mapped_column(Numeric(18, 6))
    tokens_in: Mapped[int | None]
    tokens_out: Mapped[int | None]
    result: Mapped[dict[str, Any] | None]
    error_kind: Mapped[str | None]
    error_message: Mapped[str | None]


class ExecutionLog(TenantBase):
    """One line that an execution said."""

    __tablename__ = "execution_logs"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    execution_id: Mapped[UUID] = mapped_column(ForeignKey(Execution.id, ondelete="CASCADE"))
    at: Mapped[SetByDatabase]
    level: Mapped[str]
    message: Mapped[str]
    fields: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
