"""Directives as they go over the wire."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class TransitionView(BaseModel):
    """One change of state."""

    model_config = ConfigDict(from_attributes=True)

    from_state: str
    to_state: str
    attempt: int
    changed_by: str
    error_kind: str | None
    error_message: str | None
    at: datetime


class DirectiveView(BaseModel):
    """A directive without its lease token, which belongs to the attempt alone."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    type: str
    params: dict[str, Any]
    idempotency_key: str
    state: str
    actor: str
    actor_role: str | None
    correlation_id: str | None
    causation_id: str | None
    target: str
    priority: int
    attempt: int
    max_attempts: int
    lease_owner: str | None
    lease_expires_at: datetime | None
    available_at: datetime
    expires_at: datetime | None
    result: dict[str, Any] | None
    error_kind: str | None
    error_message: str | None
    dagster_run_id: str | None
    created_at: datetime
    finished_at: datetime | None
