"""Tables of directives and their transitions, in each tenant's schema."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase


class Directive(TenantBase):
    """A side effect that was asked for. Triggers write its transitions and lifecycle signals."""

    __tablename__ = "directives"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    type: Mapped[str]
    params: Mapped[dict[str, Any]]
    idempotency_key: Mapped[str]
    state: Mapped[str]
    actor: Mapped[str]
    actor_role: Mapped[str | None]
    changed_by: Mapped[str]
    correlation_id: Mapped[str | None]
    causation_id: Mapped[str | None]
    target: Mapped[str] = mapped_column(server_default="platform")
    priority: Mapped[int] = mapped_column(server_default="0")
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int] = mapped_column(server_default="5")
    lease_token: Mapped[UUID | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    available_at: Mapped[SetByDatabase]
    expires_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None]
    error_kind: Mapped[str | None]
    error_message: Mapped[str | None]
    dagster_run_id: Mapped[str | None]
    created_at: Mapped[SetByDatabase]
    finished_at: Mapped[datetime | None]
    # What was asked for, once retention has removed the params themselves.
    action_sha256: Mapped[str | None]


class DirectiveTransition(TenantBase):
    """One change of a directive's state: from, to, by whom, in which attempt, and why."""

    __tablename__ = "directive_transitions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    directive_id: Mapped[UUID] = mapped_column(ForeignKey(Directive.id, ondelete="CASCADE"))
    from_state: Mapped[str]
    to_state: Mapped[str]
    attempt: Mapped[int]
    changed_by: Mapped[str]
    error_kind: Mapped[str | None]
    error_message: Mapped[str | None]
    at: Mapped[SetByDatabase]


class DirectiveReport(TenantBase):
    """What a connector reported of one attempt, and what became of the directive; never changed."""

    __tablename__ = "directive_reports"
    directive_id: Mapped[UUID] = mapped_column(
        ForeignKey(Directive.id, ondelete="CASCADE"), primary_key=True
    )
    attempt: Mapped[int] = mapped_column(primary_key=True)
    lease_token: Mapped[UUID]
    report_sha256: Mapped[str]
    outcome: Mapped[str]
    state: Mapped[str]
    available_at: Mapped[datetime | None]
    reported_at: Mapped[SetByDatabase]
