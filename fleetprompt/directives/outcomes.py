"""How attempts ended, as their worker tells: one structured log line each, and never params."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from fleetprompt.directives.leases import ClaimedDirective, Settlement
from fleetprompt.errors import ErrorKind
from fleetprompt.executions.running import RunningExecution
from fleetprompt.tenants.service import Tenant

logger = logging.getLogger("fleetprompt.directives")


@dataclass(frozen=True, slots=True)
class DirectiveOutcome:
    """How one attempt ended. ``state`` is the directive's, or ``lost`` when its lease was gone.

    Times are in seconds: from due to claimed, and from claimed to ended. ``kept`` is what the execution
    of a success keeps.
    """

    tenant: str
    directive_id: UUID
    type: str
    attempt: int
    state: str
    waited: float
    took: float
    execution_id: UUID | None = None
    correlation_id: str | None = None
    error_kind: ErrorKind | None = None
    error_message: str | None = None
    kept: dict[str, Any] | None = field(default=None, repr=False, compare=False)


OnDone = Callable[[DirectiveOutcome], None]


def tell(
    tenant: Tenant,
    directive: ClaimedDirective,
    settlement: Settlement,
    execution: RunningExecution | None,
    took: float,
) -> DirectiveOutcome:
    """The outcome, after logging it."""
    execution_id = execution.id if execution else None
    kept = None
    if execution is not None and settlement.state == "succeeded":
        kept = settlement.result if execution.result is None else execution.result
    waited = (directive.claimed_at - directive.available_at).total_seconds()
    outcome = DirectiveOutcome(
        tenant=tenant.slug,
        directive_id=directive.id,
        type=directive.type,
        attempt=directive.attempt,
        state=settlement.state,
        waited=max(0.0, waited),
        took=took,
        execution_id=execution_id,
        correlation_id=directive.correlation_id,
        error_kind=settlement.error_kind,
        error_message=settlement.error_message,
        kept=kept,
    )
    logger.info(
        "directive %s: %s",
        directive.type,
        settlement.state,
        extra={
            "tenant": tenant.slug,
            "directive_id": str(directive.id),
            "execution_id": str(execution_id),
            "attempt": directive.attempt,
            "correlation_id": directive.correlation_id,
            "error_kind": settlement.error_kind,
            "waited_seconds": round(outcome.waited, 3),
            "took_seconds": round(took, 3),
        },
    )
    return outcome
