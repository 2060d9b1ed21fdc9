"""Executions as they go over the wire."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class ExecutionView(BaseModel):
    """An execution; costs in US dollars."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    kind: str
    state: str
    correlation_id: str | None
    causation_id: str | None
    directive_id: UUID | None
    installation_id: UUID | None
    dagster_run_id: str | None
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    cost_usd: Decimal | None
    tokens_in: int | None
    tokens_out: int | None
    result: dict[str, Any] | None
    error_kind: str | None
    error_message: str | None


class ExecutionLogView(BaseModel):
    """One line of an execution's log."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: datetime
    level: str
    message: str
    fields: dict[str, Any]
