"""Directives that connectors work off: fetched under a lease, kept by heartbeats, ended by a report.

The queue's own rules hold (``queue.py``): leases are fencing tokens, an expired one makes the directive
pending again or, with its attempts spent, unknown. An attempt is reported once; the same report again
gets the first answer (research/platform.md, T12, T42, T43). Who asks is the connector of the API key,
whose id is the directive's target; what has another target does not exist for it.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Double, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt import secrets
from fleetprompt.directives.attempt import settle_failure
from fleetprompt.directives.ending import AttemptEnd, record_ends
from fleetprompt.directives.leases import (
    ClaimedDirective,
    Settlement,
    heartbeat,
    no_attempt,
    settle,
)
from fleetprompt.directives.models import Directive, DirectiveReport, DirectiveTransition
from fleetprompt.directives.taking import take
from fleetprompt.directives.types import AnyDirectiveType, directive_types
from fleetprompt.errors import (
    ConflictError,
    ErrorKind,
    InvalidError,
    NotFoundError,
    SecretFoundError,
    StaleLeaseError,
)
from fleetprompt.tenants.service import Tenant

LEASE_SECONDS = 60.0
RESULT_LIMIT = 32 * 1024  # bytes of JSON
MESSAGE_LIMIT = 1000  # characters
RETRY_AFTER_LIMIT = 86_400.0  # seconds

Outcome = Literal["succeeded", "failed", "unknown", "retry"]

logger = logging.getLogger("fleetprompt.directives")


@dataclass(frozen=True, slots=True)
class Connector:
    """One of a tenant's connectors, as its key names it; ``actor`` is how records name it."""

    tenant: Tenant
    id: str
    actor: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a connector says of an attempt.

    ``result`` belongs to success and ``retry_after`` (seconds, a lower bound) to ``retry``, which
    says that certainly nothing happened and that another attempt may help. ``failed`` is final.
    ``unknown`` says that nobody can tell whether the effect took place.
    """

    outcome: Outcome
    result: dict[str, Any] | None = None
    error_kind: ErrorKind | None = None
    error_message: str | None = None
    retry_after: float | None = None

    def check(self) -> None:
        """Raise InvalidError or SecretFoundError, with pointers, where it cannot be taken."""
        succeeded, errors = self.outcome == "succeeded", []
        if self.result is not None and not succeeded:
            errors.append(_wrong("/result", "only what succeeded has a result"))
        if self.result is not None and len(_canonical(self.result)) > RESULT_LIMIT:
            errors.append(_wrong("/result", f"at most {RESULT_LIMIT} bytes of JSON"))
        if succeeded and self.error_kind is not None:
            errors.append(_wrong("/error_kind", "what succeeded has no error"))
        if succeeded and self.error_message is not None:
            errors.append(_wrong("/error_message", "what succeeded has no error"))
        if len(self.error_message or "") > MESSAGE_LIMIT:
            errors.append(_wrong("/error_message", f"at most {MESSAGE_LIMIT} characters"))
        if self.retry_after is not None and self.outcome != "retry":
            errors.append(_wrong("/retry_after_seconds", "only with the outcome 'retry'"))
        if not 0 <= (self.retry_after or 0) <= RETRY_AFTER_LIMIT:
            errors.append(_wrong("/retry_after_seconds", f"0 to {RETRY_AFTER_LIMIT:.0f} seconds"))
        if errors:
            raise InvalidError("This report cannot be taken.", errors=errors)
        told = {"result": self.result, "error_message": self.error_message}
        if found := list(secrets.find(told)):
            raise SecretFoundError(
                "Nothing was stored. Report the attempt again without what looks like a secret.",
                errors=[_wrong(at, f"looks like a secret: {what}") for at, what in found],
            )

    @property
    def sha256(self) -> str:
        """The same for reports that say the same."""
        return sha256(_canonical(asdict(self))).hexdigest()


async def lease(
    session: AsyncSession,
    connector: Connector,
    *,
    limit: int,
    lease_seconds: float = LEASE_SECONDS,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> list[Directive]:
    """Up to ``limit`` of the connector's due directives, each now running under a new lease.

    Most urgent first. Those that another poll is taking at this moment are passed over.
    """
    found = await take(
        session,
        connector.tenant,
        limit=limit,
        owner=connector.actor,
        lease_seconds=lease_seconds,
        types=directive_types() if types is None else types,
        target=connector.id,
    )
    for directive, end in found.ended:
        _log(connector, directive.id, directive.attempt, f"ended {end.state} without an attempt")
    ids = [one.id for one in found.claimed]
    rows = await session.scalars(
        select(Directive).where(Directive.id.in_(ids)).execution_options(populate_existing=True)
    )
    by_id = {row.id: row for row in rows}
    for one in found.claimed:
        _log(connector, one.id, one.attempt, "leased")
    return [by_id[one] for one in ids]


async def extend(
    session: AsyncSession,
    connector: Connector,
    directive_id: UUID,
    attempt: int,
    lease_token: UUID,
    *,
    lease_seconds: float = LEASE_SECONDS,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> datetime:
    """Renew an attempt's lease; when it ends now. StaleLeaseError if the attempt has lost it.

    No lease is renewed beyond the type's ``timeout`` from the attempt's beginning: the connector is alive,
    but the attempt is not worth finishing any more.
    """
    directive = await _own(session, connector, directive_id)
    kind = (directive_types() if types is None else types).get(directive.type)
    if kind is not None:
        lease_seconds = min(lease_seconds, kind.timeout - await _taken(session, directive))
    kept = (
        directive.attempt == attempt
        and lease_seconds > 0
        and await heartbeat(session, [(directive_id, lease_token)], lease_seconds=lease_seconds)
    )
    if kept:
        await session.refresh(directive)
    if not kept or directive.lease_expires_at is None:
        _log(connector, directive_id, attempt, "refused to renew a lease that is gone")
        raise _stale(directive_id, attempt)
    return directive.lease_expires_at


async def _taken(session: AsyncSession, directive: Directive) -> float:
    """Seconds since the directive's latest attempt began."""
    seconds = await session.scalar(
        select(
            func.extract("epoch", func.now() - func.max(DirectiveTransition.at)).cast(Double)
        ).where(
            DirectiveTransition.directive_id == directive.id,
            DirectiveTransition.to_state == "running",
        )
    )
    return float(seconds or 0.0)


async def report(
    session: AsyncSession,
    connector: Connector,
    directive_id: UUID,
    attempt: int,
    lease_token: UUID,
    said: Report,
    *,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> DirectiveReport:
    """End an attempt as the connector says, once; the same report again answers the first one.

    Another report of a reported attempt is a ConflictError, one of an attempt that has lost its
    lease a StaleLeaseError. Nothing is written in either case. Equal reports at once wait for one another
    at the directive's row.
    """
    said.check()
    directive = await _own(session, connector, directive_id, lock=True)
    first = await session.get(DirectiveReport, (directive_id, attempt))
    if first is not None:
        if first.lease_token != lease_token:
            raise _stale(directive_id, attempt)
        if first.report_sha256 != said.sha256:
            raise ConflictError(
                f"Attempt {attempt} of directive {directive_id} was reported already, as "
                f"{first.outcome!r} and with other content; the first report counts."
            )
        return first
    held = replace(no_attempt(directive), attempt=attempt, lease_token=lease_token)
    known = directive_types() if types is None else types
    settlement = _settlement(known.get(directive.type), held, said)
    try:
        await settle(session, held, settlement, owner=connector.actor)
    except StaleLeaseError:
        _log(connector, directive_id, attempt, "refused the report of a lease that is gone")
        raise
    await record_ends(session, connector.tenant, [AttemptEnd(held, settlement)], known)
    await session.refresh(directive)
    made = DirectiveReport(
        directive_id=directive_id,
        attempt=attempt,
        lease_token=lease_token,
        report_sha256=said.sha256,
        outcome=said.outcome,
        state=settlement.state,
        available_at=directive.available_at if settlement.state == "pending" else None,
    )
    session.add(made)
    await session.flush()
    _log(connector, directive_id, attempt, f"reported {said.outcome}: {settlement.state}")
    return made


async def _own(
    session: AsyncSession, connector: Connector, directive_id: UUID, *, lock: bool = False
) -> Directive:
    query = select(Directive).where(Directive.id == directive_id, Directive.target == connector.id)
    found = await session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFoundError(f"There is no directive {directive_id} for this connector.")
    return found


def _settlement(kind: AnyDirectiveType | None, held: ClaimedDirective, said: Report) -> Settlement:
    if said.outcome == "succeeded":
        return Settlement("succeeded", result=said.result)
    error_kind, message = said.error_kind or "unknown", said.error_message or "no reason was given"
    if said.outcome == "retry":
        return settle_failure(kind, held, error_kind, message, said.retry_after)
    return Settlement(said.outcome, error_kind=error_kind, error_message=message)


def _stale(directive_id: UUID, attempt: int) -> StaleLeaseError:
    return StaleLeaseError(
        f"Attempt {attempt} of directive {directive_id} does not hold this lease; stop working on it."
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "surrogatepass"
    )


def _wrong(pointer: str, detail: str) -> dict[str, str]:
    return {"pointer": pointer, "detail": detail}


def _log(connector: Connector, directive_id: UUID, attempt: int, what: str) -> None:
    logger.info(
        "directive of a connector: %s",
        what,
        extra={
            "tenant": connector.tenant.slug,
            "connector_id": connector.id,
            "directive_id": str(directive_id),
            "attempt": attempt,
        },
    )
