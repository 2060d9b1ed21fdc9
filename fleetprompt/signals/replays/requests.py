"""What the handlers ask for in a replay: judged alike muted and live, and requested when live.

A directive that exists under the same key is a duplicate, whatever became of it. What cannot be a
directive (an unknown type, params that do not fit, a key that belongs to something else) is refused
and told, and holds up nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from hashlib import sha256 as sha256_of
from traceback import extract_tb
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import Text

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.action import action_of
from fleetprompt.directives.approvals.asking import first_action
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import KEY_LIMIT, check_params, request_directive
from fleetprompt.directives.types import PLATFORM_TARGET, AnyDirectiveType, find_type
from fleetprompt.errors import FleetPromptError, IdempotencyMismatchError, InvalidError
from fleetprompt.ids import new_id
from fleetprompt.packages.config_errors import refuse_unstorable
from fleetprompt.packages.models import Installation
from fleetprompt.packages.service import INSTALLED
from fleetprompt.secrets import redact
from fleetprompt.signals.handlers import DirectiveRequest, Handlers, SignalView
from fleetprompt.signals.models import Signal
from fleetprompt.signals.refusals import REFUSALS
from fleetprompt.signals.replays.models import Replay, ReplayFinding
from fleetprompt.tenants.service import Tenant

# What is caught up on does not go before what happens now.
CATCHING_UP = -1
MOST_FAULTS = 100  # refusals, and handlers' failures, that a replay keeps; all are counted
PARAMS_LIMIT = 4096  # bytes of params that a muted finding keeps
_DETAIL_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of one handler for one signal."""

    signal_id: UUID
    package: str
    request: DirectiveRequest
    correlation_id: str


@dataclass(slots=True)
class Tally:
    """What one batch gave: counts, and findings to be kept."""

    would_request: int = 0
    requested: int = 0
    duplicates: int = 0
    refused: int = 0
    handlers_failed: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)

    def fault(self, outcome: str, signal_id: UUID, package: str, detail: str, **more: Any) -> None:
        """Count and note what came to nothing."""
        if outcome == "refused":
            self.refused += 1
        else:
            self.handlers_failed += 1
        note = {"signal_id": signal_id, "package": package, "outcome": outcome, **more}
        self.findings.append({**note, "detail": redact(detail)[:_DETAIL_LIMIT]})


async def installed_packages(session: AsyncSession) -> frozenset[str]:
    """Packages whose handlers ingest would ask in this tenant."""
    found = await session.scalars(
        select(Installation.package).where(Installation.state.in_(INSTALLED))
    )
    return frozenset(found)


def ask_handlers(
    handlers: Handlers, packages: frozenset[str], signals: Sequence[Signal], tally: Tally
) -> list[Asked]:
    """What the packages' handlers ask for; one that fails is noted, and the others are asked."""
    asked: list[Asked] = []
    for signal in signals:
        for answer in handlers.answers(_view(signal), packages):
            if answer.error is not None:
                tally.fault("handler_failed", signal.id, answer.package, _place(answer.error))
            for request in answer.requests:
                # Where the story has no id, the signal's own keeps the two together.
                story = request.correlation_id or signal.correlation_id or str(signal.id)
                asked.append(Asked(signal.id, answer.package, request, story))
    return asked


async def request_all(
    session: AsyncSession,
    tenant: Tenant,
    replay: Replay,
    asked: Sequence[Asked],
    types: Mapping[str, AnyDirectiveType],
    tally: Tally,
) -> None:
    """Judge what was asked for and, in a live replay, request what is new; keeps the findings."""
    actions: list[tuple[Asked, str, dict[str, Any]]] = []
    for one in asked:
        try:
            params = _check(one, types)
            actions.append((one, _sha256(one.request, params), params))
        except FleetPromptError as error:
            _refuse(tally, one, error)
        except (TypeError, ValueError, AttributeError) as error:
            _refuse(tally, one, InvalidError(f"This is no directive request: {error}"))
    for one, sha256, params, known in await _with_known(session, replay, actions):
        if known is not None:
            if sha256 in known:
                tally.duplicates += 1
            else:
                _refuse(tally, one, _taken())
        elif replay.live:
            await _request(session, tenant, replay, one, sha256, types, tally)
        else:
            note = {"params": params if _size(params) <= PARAMS_LIMIT else None}
            tally.would_request += 1
            tally.findings.append(_found(one, "would_request", sha256) | note)
    await _keep(session, replay, tally)


async def _request(
    session: AsyncSession,
    tenant: Tenant,
    replay: Replay,
    one: Asked,
    sha256: str,
    types: Mapping[str, AnyDirectiveType],
    tally: Tally,
) -> None:
    request = one.request
    try:
        async with session.begin_nested():
            directive, made = await request_directive(
                session,
                tenant,
                request.type,
                request.params,
                idempotency_key=request.idempotency_key,
                actor=Actor(f"package:{one.package}", "platform"),
                correlation_id=one.correlation_id,
                causation_id=str(replay.id),
                priority=CATCHING_UP,
                target=None if request.target == PLATFORM_TARGET else request.target,
                types=types,
            )
            if made and directive.max_attempts != request.max_attempts:
                directive.max_attempts = request.max_attempts
    except FleetPromptError as error:
        _refuse(tally, one, error)
    except DBAPIError as error:
        if not isinstance(error.orig, REFUSALS):
            raise
        _refuse(tally, one, InvalidError("PostgreSQL refuses this directive."))
    else:
        if made:
            tally.requested += 1
            note = {"directive_id": directive.id}
            tally.findings.append(_found(one, "requested", sha256) | note)
        else:
            tally.duplicates += 1


def _check(one: Asked, types: Mapping[str, AnyDirectiveType]) -> dict[str, Any]:
    """The params as they would be stored; what ``request_directive`` refuses is refused here too."""
    request = one.request
    kind = find_type(request.type, types)
    if not 0 < len(request.idempotency_key) <= KEY_LIMIT:
        raise InvalidError(f"An idempotency key has 1 to {KEY_LIMIT} characters.")
    if request.max_attempts < 1:
        raise InvalidError("A directive has at least one attempt.")
    if (request.target == PLATFORM_TARGET) != (kind.target == PLATFORM_TARGET):
        raise InvalidError(f"{kind.name} is not for the target {request.target!r}.")
    params = check_params(kind, request.params)
    refuse_unstorable([params, request.idempotency_key, one.correlation_id], "/params")
    return params


_KNOWN = text(
    """
    SELECT r.number, d.id AS directive_id, f.action_sha256
    FROM unnest(:keys) WITH ORDINALITY AS r (key, number)
    LEFT JOIN directives d ON d.idempotency_key = r.key
    LEFT JOIN replay_findings f ON f.replay_id = :replay AND f.idempotency_key = r.key
      AND f.outcome IN ('would_request', 'requested')
    -- In the order in which ingest inserts keys, so that neither waits for the other in a ring.
    ORDER BY r.key, r.number
    """
).bindparams(bindparam("keys", type_=ARRAY(Text())))


async def _with_known(
    session: AsyncSession, replay: Replay, actions: Sequence[tuple[Asked, str, dict[str, Any]]]
) -> list[tuple[Asked, str, dict[str, Any], set[str] | None]]:
    """Each action with the hashes of what its key stands for already, None where it is free."""
    if not actions:
        return []
    keys = [one.request.idempotency_key for one, _, _ in actions]
    rows = (await session.execute(_KNOWN, {"keys": keys, "replay": replay.id})).all()
    ids = [row.directive_id for row in rows if row.directive_id is not None]
    directives = {
        one.id: one for one in await session.scalars(select(Directive).where(Directive.id.in_(ids)))
    }
    found: list[tuple[Asked, str, dict[str, Any], set[str] | None]] = []
    before: dict[str, str] = {}
    for row in rows:
        one, sha256, params = actions[row.number - 1]
        key = one.request.idempotency_key
        known: set[str] | None = None
        if row.directive_id is not None:
            known = await _hashes(session, directives[row.directive_id], sha256)
        elif row.action_sha256 is not None:
            known = {row.action_sha256}
        elif key in before:
            known = {before[key]}
        before.setdefault(key, sha256)
        found.append((one, sha256, params, known))
    return found


async def _hashes(session: AsyncSession, directive: Directive, sha256: str) -> set[str]:
    """What a directive says now and, where people may have edited it, what it was asked for with."""
    found = {action_of(directive).sha256}
    if sha256 not in found and (first := await first_action(session, directive.id)) is not None:
        found.add(sha256_of(first.encode()).hexdigest())
    return found


def _sha256(request: DirectiveRequest, params: dict[str, Any]) -> str:
    return action_of(Directive(type=request.type, params=params, target=request.target)).sha256


async def _keep(session: AsyncSession, replay: Replay, tally: Tally) -> None:
    faults = {"refused": replay.refused, "handler_failed": replay.handlers_failed}
    kept = []
    for finding in tally.findings:
        outcome = finding["outcome"]
        if outcome in faults:
            faults[outcome] += 1
            if faults[outcome] > MOST_FAULTS:
                continue
        kept.append({**_EMPTY, "id": new_id(), "replay_id": replay.id, **finding})
    if kept:
        await session.execute(insert(ReplayFinding), kept)


_EMPTY: dict[str, Any] = dict.fromkeys(
    (
        *("directive_type", "idempotency_key", "action_sha256"),
        *("params", "directive_id", "detail"),
    )
)


def _found(one: Asked, outcome: str, sha256: str) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "signal_id": one.signal_id,
        "package": one.package,
        "directive_type": one.request.type,
        "idempotency_key": one.request.idempotency_key,
        "action_sha256": sha256,
    }


def _refuse(tally: Tally, one: Asked, error: FleetPromptError) -> None:
    places = [f"{at.get('pointer', '')} {at.get('detail', '')}" for at in error.errors]
    # A handler may have put anything where text belongs.
    given: dict[str, object] = {
        "directive_type": one.request.type,
        "idempotency_key": one.request.idempotency_key,
    }
    named = {name: value for name, value in given.items() if _can_be_shown(value)}
    detail = " ".join((error.detail, "; ".join(places))).strip()
    tally.fault("refused", one.signal_id, one.package, detail, **named)


def _can_be_shown(value: object) -> bool:
    return isinstance(value, str) and len(value) <= KEY_LIMIT and value.isprintable()


def _taken() -> FleetPromptError:
    return IdempotencyMismatchError("The key belongs to something that has other content.")


def _place(error: Exception) -> str:
    """Which error, and where; its message may hold what a signal says."""
    frame = extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno}"


def _size(params: dict[str, Any]) -> int:
    return len(msgspec.json.encode(params))


def _view(signal: Signal) -> SignalView:
    return SignalView(
        id=signal.id,
        type=signal.type,
        source=signal.source,
        occurred_at=signal.occurred_at.astimezone(UTC),
        subject_type=signal.subject_type,
        subject_id=signal.subject_id,
        data=signal.data,
        metadata=signal.context,
    )
