"""Executions outside the platform, as the agents that ran them tell of them.

An agent reports with signals ``agent.execution.started | completed | failed`` or through
``POST /api/v1/executions``, which writes the same signals. Nothing else is stored: such an execution
is what its signals say, folded where it is read (docs/decisions/external-executions.md). Signals
with one ``data.execution_id`` tell of one execution; without it each tells of its own. Its id is that
of the first of them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, get_args
from uuid import UUID

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Text, Uuid

from fleetprompt import secrets
from fleetprompt.errors import (
    ConflictError,
    ErrorKind,
    IdempotencyMismatchError,
    NotFoundError,
    SecretFoundError,
    TooLargeError,
)
from fleetprompt.executions.schemas import ExecutionReport, ExecutionView
from fleetprompt.packages.canonical import canonical_json
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.signals.envelope import SIGNAL_LIMIT, key_of
from fleetprompt.signals.models import Signal, SignalKey

STARTED = "agent.execution.started"
ENDED = ("agent.execution.completed", "agent.execution.failed")
SOURCE = "api"
MOST_AT_ONCE = 200
COST_LIMIT = 10**9  # US dollars; figures that no execution can have are passed over
TOKEN_LIMIT = 10**12
_MESSAGE_LIMIT = 4000
_KIND_LIMIT = 128
_SIGNALS_EACH = 100

_ONE_AT_A_TIME = text(
    "SELECT pg_advisory_xact_lock(hashtextextended(current_user || ':execution:' || :key, 0))"
)
_TYPES = "('agent.execution.started', 'agent.execution.completed', 'agent.execution.failed')"
# A signal that no earlier one of its execution precedes, with what all of them say. Ids that an
# execution of the platform has are that execution's. The lateral parts are loops over an index.
_FOLD = f"""
    SELECT h.id, h.source, h.correlation_id, h.causation_id, told.first_at, told.started_at,
           told.finished_at, told.ended, told.last
    FROM signals h
    LEFT JOIN LATERAL (
      SELECT true AS found FROM signals e
      WHERE e.type IN {_TYPES} AND e.data ->> 'execution_id' = h.data ->> 'execution_id'
        AND e.id < h.id LIMIT 1
    ) AS earlier ON true
    LEFT JOIN LATERAL (
      SELECT true AS found FROM executions x
      WHERE x.id = CASE WHEN h.data ->> 'execution_id'
                             ~ '^[0-9a-fA-F]{{8}}(-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}$'
                        THEN CAST(h.data ->> 'execution_id' AS uuid) END LIMIT 1
    ) AS own ON true
    CROSS JOIN LATERAL (
      SELECT min(s.occurred_at) AS first_at,
             min(s.occurred_at) FILTER (WHERE s.type = '{STARTED}') AS started_at,
             max(s.occurred_at) FILTER (WHERE s.type <> '{STARTED}') AS finished_at,
             (array_agg(s.type ORDER BY s.occurred_at DESC, s.id DESC)
              FILTER (WHERE s.type <> '{STARTED}'))[1] AS ended,
             (array_agg(s.data ORDER BY s.type <> '{STARTED}' DESC, s.occurred_at DESC,
                        s.id DESC))[1] AS last
      FROM (
        (SELECT i.* FROM signals i
         WHERE i.type IN {_TYPES} AND i.data ->> 'execution_id' = h.data ->> 'execution_id'
         ORDER BY i.id LIMIT {_SIGNALS_EACH})
        UNION ALL
        SELECT i.* FROM signals i WHERE i.id = h.id AND h.data ->> 'execution_id' IS NULL
      ) AS s
    ) AS told
    WHERE h.type IN {_TYPES} AND earlier.found IS NULL AND own.found IS NULL
"""  # noqa: S608 - only constants are interpolated
_CONDITIONS = {
    "id": "h.id = :id",
    "before": "h.id < :before",
    "correlation_id": "h.correlation_id = :correlation_id",
    "key": "h.data ->> 'execution_id' = :key",
    "kind": "coalesce(told.last ->> 'agent', told.last ->> 'kind', 'agent') = :kind",
    "state": "CASE WHEN told.ended IS NULL THEN 'running' ELSE substr(told.ended, 17) END = :state",
    "chains": "(h.correlation_id = ANY(:chains) OR h.id = ANY(:loose))",
}


async def report(
    session: AsyncSession, told: ExecutionReport, *, reporter: str, now: datetime
) -> tuple[ExecutionView, bool]:
    """Write what an agent says of its execution; whether anything of it was new.

    Saying the same again changes nothing. The same key and state with other content is an
    IdempotencyMismatchError, a second end in another state a ConflictError, what looks like a
    secret a SecretFoundError, and more than 64 KiB a TooLargeError.
    """
    found_secrets = [
        {"pointer": pointer, "detail": f"looks like a secret: {what}"}
        for pointer, what in secrets.find(told.model_dump(mode="json"))
    ]
    if found_secrets:
        raise SecretFoundError(errors=found_secrets)
    await session.execute(_ONE_AT_A_TIME, {"key": told.key})
    before = await _found(session, {"key": told.key}, limit=1)
    known = before[0] if before else None
    if known and known.state not in ("running", told.state) and told.state != "started":
        raise ConflictError(f"This execution has ended already: {known.state}.")
    correlation_id = told.correlation_id or (known.correlation_id if known else None)
    common = {"execution_id": told.key, "agent": told.kind, "reported_by": reporter}
    new = False
    if told.state == "started" or told.started_at is not None:
        new |= await _tell(session, told, "started", told.started_at, common, correlation_id, now)
    if told.state != "started":
        outcome = told.model_dump(
            mode="json",
            exclude_none=True,
            include={"tokens_in", "tokens_out", "result", "error_kind", "error_message"},
        )
        if told.cost_usd is not None:
            outcome["cost_usd"] = float(told.cost_usd)
        data = {**common, **outcome}
        new |= await _tell(session, told, told.state, told.finished_at, data, correlation_id, now)
    (found,) = await _found(session, {"key": told.key}, limit=1)
    return found, new


async def _tell(
    session: AsyncSession,
    told: ExecutionReport,
    state: str,
    at: datetime | None,
    data: dict[str, Any],
    correlation_id: str | None,
    now: datetime,
) -> bool:
    if len(canonical_json(data)) > SIGNAL_LIMIT:
        raise TooLargeError(
            f"A report has at most {SIGNAL_LIMIT} bytes. Store the result elsewhere and refer to it."
        )
    signal = NewSignal(
        type=f"agent.execution.{state}",
        source=SOURCE,
        occurred_at=at or now,
        subject_type="execution",
        subject_id=told.key,
        data=data,
        # Never without one, so that whatever tells of it later stands in the same story.
        correlation_id=correlation_id or f"execution:{told.key}",
        causation_id=told.causation_id,
        dedupe_key=f"api:execution:{state}:{told.key}",
    )
    key = key_of(signal.dedupe_key, SOURCE, None)
    stored_id = await session.scalar(select(SignalKey.signal_id).where(SignalKey.key == key))
    if stored_id is None:
        await emit(session, signal)
        return True
    stored = await session.get(Signal, stored_id)
    if stored is None:
        raise ConflictError("This execution was reported too long ago. Use a new key.")
    same = (
        (stored.type, stored.source) == (signal.type, SOURCE)
        and {**stored.data, "reported_by": None} == {**data, "reported_by": None}
        and at in (None, stored.occurred_at)
        and told.correlation_id in (None, stored.correlation_id)
        and told.causation_id in (None, stored.causation_id)
    )
    if not same:
        raise IdempotencyMismatchError(
            f"That this execution {state} was reported before, with other content.",
            errors=[{"pointer": "/key", "detail": "use a new key for another execution"}],
        )
    return False


async def get(session: AsyncSession, execution_id: UUID) -> ExecutionView:
    """The reported execution of this id; NotFoundError otherwise."""
    found = await _found(session, {"id": execution_id}, limit=1)
    if not found:
        raise NotFoundError(f"There is no execution {execution_id}.")
    return found[0]


async def list_reported(
    session: AsyncSession,
    *,
    kind: str | None = None,
    state: str | None = None,
    correlation_id: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[ExecutionView]:
    """Reported executions, newest first; ``before`` is the last id of the page before."""
    wanted = {"kind": kind, "state": state, "correlation_id": correlation_id, "before": before}
    given = {name: value for name, value in wanted.items() if value is not None}
    return await _found(session, given, limit=min(limit, MOST_AT_ONCE))


async def of_chains(
    session: AsyncSession, chains: Sequence[str], loose: Sequence[UUID], *, limit: int
) -> list[ExecutionView]:
    """Those first told of under one of these correlation ids, or by one of these signals."""
    return await _found(session, {"chains": list(chains), "loose": list(loose)}, limit=limit)


async def _found(
    session: AsyncSession, given: Mapping[str, Any], *, limit: int
) -> list[ExecutionView]:
    conditions = "".join(f" AND {_CONDITIONS[name]}" for name in given if name in _CONDITIONS)
    statement = text(f"{_FOLD}{conditions} ORDER BY h.id DESC LIMIT :limit")
    if "chains" in given:
        statement = statement.bindparams(
            bindparam("chains", type_=ARRAY(Text())), bindparam("loose", type_=ARRAY(Uuid()))
        )
    rows = await session.execute(statement, {**given, "limit": limit})
    return [_view(row) for row in rows]


def _view(row: Any) -> ExecutionView:
    last: dict[str, Any] = row.last
    kind = last.get("agent") or last.get("kind")
    cost = _figure(last.get("cost_usd"), COST_LIMIT)
    tokens_in, tokens_out = (
        _figure(last.get(name), TOKEN_LIMIT) for name in ("tokens_in", "tokens_out")
    )
    error_kind, message = last.get("error_kind"), last.get("error_message")
    return ExecutionView(
        id=row.id,
        kind=kind[:_KIND_LIMIT] if isinstance(kind, str) else "agent",
        state="running" if row.ended is None else row.ended.rpartition(".")[2],
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        directive_id=None,
        installation_id=None,
        dagster_run_id=None,
        requested_at=row.first_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        cost_usd=None if cost is None else round(cost, 6),
        tokens_in=None if tokens_in is None else int(tokens_in),
        tokens_out=None if tokens_out is None else int(tokens_out),
        result=last["result"] if isinstance(last.get("result"), dict) else None,
        error_kind=error_kind if error_kind in get_args(ErrorKind) else None,
        error_message=secrets.redact(message)[:_MESSAGE_LIMIT]
        if isinstance(message, str)
        else None,
        reported_by=row.source,
    )


def _figure(value: Any, most: int) -> Decimal | None:
    """A number from 0 to ``most``; signals may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value)) if 0 <= value <= most else None
