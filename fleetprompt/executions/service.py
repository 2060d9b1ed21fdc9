"""Making and reading executions, and what they log."""

import json
import math
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt import secrets
from fleetprompt.db.text import storable
from fleetprompt.errors import NotFoundError
from fleetprompt.executions.models import Execution, ExecutionLog
from fleetprompt.ids import new_id

Level = Literal["debug", "info", "warning", "error"]

MESSAGE_LIMIT = 4000
FIELDS_LIMIT = 8 * 1024
MOST_AT_ONCE = 200
_OPEN = ("requested", "running")

_LOG = text(
    "INSERT INTO execution_logs (execution_id, level, message, fields)"
    " VALUES (:execution_id, :level, :message, CAST(:fields AS jsonb))"
)


async def create(
    session: AsyncSession,
    kind: str,
    *,
    execution_id: UUID | None = None,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    directive_id: UUID | None = None,
    installation_id: UUID | None = None,
) -> Execution:
    """A requested execution; ``execution_id`` where its id had to be known before."""
    execution = Execution(
        id=execution_id or new_id(),
        kind=kind,
        state="requested",
        correlation_id=correlation_id,
        causation_id=causation_id,
        directive_id=directive_id,
        installation_id=installation_id,
    )
    session.add(execution)
    await session.flush()
    return execution


async def keep_result(session: AsyncSession, execution_id: UUID, result: dict[str, Any]) -> None:
    """Store the result so far of an execution that has not ended."""
    await session.execute(
        update(Execution)
        .where(Execution.id == execution_id, Execution.state.in_(_OPEN))
        .values(result=result)
    )


async def log(
    session: AsyncSession, execution_id: UUID, level: Level, message: str, **fields: Any
) -> None:
    """Add a line: at most 4,000 characters and 8 KiB of fields, known shapes of secrets masked.

    What PostgreSQL cannot hold is replaced, so that a line may quote anything.
    """
    line = {
        "execution_id": execution_id,
        "level": level,
        "message": bounded_message(message),
        "fields": json.dumps(bounded_fields(fields)),
    }
    await session.execute(_LOG, line)


async def get(session: AsyncSession, execution_id: UUID) -> Execution:
    """The tenant's execution of this id; NotFoundError otherwise."""
    found = await session.get(Execution, execution_id)
    if found is None:
        raise NotFoundError(f"There is no execution {execution_id}.")
    return found


async def list_executions(
    session: AsyncSession,
    *,
    kind: str | None = None,
    state: str | None = None,
    installation_id: UUID | None = None,
    correlation_id: str | None = None,
    directive_id: UUID | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Execution]:
    """Executions, newest first; ``before`` is the last id of the page before."""
    query = select(Execution).order_by(Execution.id.desc()).limit(min(limit, MOST_AT_ONCE))
    wanted = {
        Execution.kind: kind,
        Execution.state: state,
        Execution.installation_id: installation_id,
        Execution.correlation_id: correlation_id,
        Execution.directive_id: directive_id,
    }
    for column, value in wanted.items():
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(Execution.id < before)
    return list(await session.scalars(query))


async def logs(
    session: AsyncSession, execution_id: UUID, *, after: int = 0, limit: int = 500
) -> list[ExecutionLog]:
    """An execution's lines in order; ``after`` is the last id of the page before."""
    return list(
        await session.scalars(
            select(ExecutionLog)
            .where(ExecutionLog.execution_id == execution_id, ExecutionLog.id > after)
            .order_by(ExecutionLog.id)
            .limit(limit)
        )
    )


def bounded_message(message: str) -> str:
    """At most 4,000 characters, known shapes of secrets masked."""
    return storable(secrets.redact(message))[:MESSAGE_LIMIT]


def bounded_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """At most 8 KiB as JSON, known shapes of secrets masked."""
    clean: dict[str, Any] = json.loads(json.dumps(_masked(fields), default=_told))
    if len(json.dumps(clean)) > FIELDS_LIMIT:
        return {"left_out": f"fields over {FIELDS_LIMIT} bytes"}
    return clean


def _told(value: Any) -> str:
    return storable(secrets.redact(str(value)))


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return storable(secrets.redact(value))
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {
            storable(str(name)): "[redacted]"
            if isinstance(child, str) and secrets.NAME.match(str(name))
            else _masked(child)
            for name, child in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(child) for child in value]
    return value
