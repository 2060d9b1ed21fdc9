"""Executions as they go over the wire."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from fleetprompt.errors import ErrorKind


class ExecutionView(BaseModel):
    """An execution; costs in US dollars. ``reported_by``: the source, when it ran elsewhere."""

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
    reported_by: str | None = None


class ExecutionLogView(BaseModel):
    """One line of an execution's log."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: datetime
    level: str
    message: str
    fields: dict[str, Any]


def _plain(value: str) -> str:
    if "\x00" in value:
        raise ValueError("NUL cannot be stored")
    return value


def _sensible(value: datetime) -> datetime:
    if not 1900 <= value.year <= 2200:
        raise ValueError("must lie between 1900 and 2200")
    return value


_Key = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_plain)]
_When = Annotated[AwareDatetime, AfterValidator(_sensible)]


class ExecutionReport(BaseModel):
    """What an agent says of an execution of its own, once when it ends or also when it starts.

    ``key`` is the agent's own name of the execution: the same key is the same execution, and saying
    the same again changes nothing. Times need a zone; unset, they are now.
    """

    model_config = ConfigDict(extra="forbid")

    key: _Key
    kind: Annotated[str, StringConstraints(max_length=128, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")]
    state: Literal["started", "completed", "failed"]
    started_at: _When | None = None
    finished_at: _When | None = None
    correlation_id: _Key | None = None
    causation_id: _Key | None = None
    cost_usd: Annotated[Decimal, Field(ge=0, le=10**9, decimal_places=6)] | None = None
    tokens_in: Annotated[int, Field(ge=0, le=10**12)] | None = None
    tokens_out: Annotated[int, Field(ge=0, le=10**12)] | None = None
    result: dict[str, Any] | None = None
    error_kind: ErrorKind | None = None
    error_message: (
        Annotated[str, StringConstraints(max_length=4000), AfterValidator(_plain)] | None
    ) = None

    @model_validator(mode="after")
    def _fits_its_state(self) -> Self:
        outcome = (self.finished_at, self.cost_usd, self.tokens_in, self.tokens_out, self.result)
        if self.state == "started" and any(one is not None for one in outcome):
            raise ValueError("an execution that has only started has no end, costs or result yet")
        if self.state != "failed" and (self.error_kind or self.error_message):
            raise ValueError("an error goes with the state failed")
        if self.started_at and self.finished_at and self.finished_at < self.started_at:
            raise ValueError("finished_at lies before started_at")
        return self
