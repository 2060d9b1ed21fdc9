"""Installations as they go over the wire."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from fleetprompt.executions.schemas import ExecutionView


class CredentialView(BaseModel):
    """A credential without its secret, which is never given back."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    kind: str
    label: str
    state: str
    created_at: datetime
    checked_at: datetime | None
    last_error: str | None


class SlotView(BaseModel):
    """One local date's slot."""

    model_config = ConfigDict(from_attributes=True)

    local_date: date
    due_at: datetime
    window_start: datetime
    window_end: datetime
    zone: str
    state: str
    directive_id: UUID | None


class InstallationView(BaseModel):
    """An installation: ``missing`` names the options that must still be given before it can work."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    package: str
    version: str
    state: str
    config: dict[str, Any]
    config_checksum: str
    last_error_kind: str | None
    last_error: str | None
    last_error_at: datetime | None
    last_success_at: datetime | None
    created_at: datetime
    updated_at: datetime


class InstallationDetails(InstallationView):
    """An installation with what its page shows beside it."""

    missing: list[str]
    credentials: list[CredentialView]
    slots: list[SlotView]
    executions: list[ExecutionView]
