"""One attempt at a directive: run the handler, say what its end means, and write that down."""

import asyncio
import logging
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.queue import ClaimedDirective, Settlement
from fleetprompt.directives.types import AnyDirectiveType, Failure, RetryPolicy
from fleetprompt.errors import (
    DatabaseUnavailableError,
    ErrorKind,
    FleetPromptError,
    OverloadedError,
    RateLimitedError,
)
from fleetprompt.executions import service as executions
from fleetprompt.executions.models import Execution
from fleetprompt.executions.running import RunningExecution
from fleetprompt.secrets import redact
from fleetprompt.tenants.service import Tenant

logger = logging.getLogger("fleetprompt.directives")

_KIND_OF_PROBLEM: dict[type[FleetPromptError], ErrorKind] = {
    DatabaseUnavailableError: "network",
    OverloadedError: "network",
    RateLimitedError: "rate_limit",
}

_EXECUTION_ENDS: dict[str, executions.Ended] = {"succeeded": "completed", "cancelled": "cancelled"}


async def run_handler(kind: AnyDirectiveType | None, context: HandlerContext) -> Settlement:
    """Run the handler within its time and turn its end into the directive's next state.

    A problem of the platform with a status below 500 is the request's own fault and final; anything
    that a handler does not expect is ``unknown`` and tried again, because handlers are written to
    be. A cancelled attempt passes its cancellation on.
    """
    directive = context.directive
    if kind is None or kind.handler is None:
        return Settlement(
            "failed",
            error_kind="validation",
            error_message=f"this platform has no handler for directives of type {directive.type!r}",
        )
    try:
        params = kind.params.model_validate(directive.params)
        async with asyncio.timeout(kind.timeout):
            return Settlement("succeeded", result=await kind.handler(context, params))
    except DirectiveFailed as error:
        return settle_failure(kind, directive, error.error_kind, error.message, error.retry_after)
    except OutcomeUnknown as error:
        return Settlement("unknown", error_kind=error.error_kind, error_message=error.message)
    except ValidationError:
        return Settlement(
            "failed",
            error_kind="validation",
            error_message=f"the params do not fit this version of {kind.name}",
        )
    except TimeoutError:
        message = f"not done within {kind.timeout:g} s"
        return settle_failure(kind, directive, "unknown", message, None)
    except FleetPromptError as error:
        fallback: ErrorKind = "validation" if error.status < 500 else "unknown"
        reason = _KIND_OF_PROBLEM.get(type(error), fallback)
        return settle_failure(kind, directive, reason, error.detail, error.retry_after)
    except Exception as error:
        logger.exception("handler of %s failed", kind.name)
        message = f"unexpected {type(error).__name__} in the handler; the log has the details"
        return settle_failure(kind, directive, "unknown", message, None)


def settle_failure(
    kind: AnyDirectiveType | None,
    directive: ClaimedDirective,
    error_kind: ErrorKind,
    message: str,
    retry_after: float | None,
) -> Settlement:
    """Another attempt if the failure's class and the attempts that are left allow it, else the end."""
    retry = RetryPolicy() if kind is None else kind.retry
    delay = retry.delay(directive.attempt, error_kind, retry_after)
    if delay is None or directive.attempt >= directive.max_attempts:
        return Settlement("failed", error_kind=error_kind, error_message=message)
    return Settlement("pending", error_kind=error_kind, error_message=message, retry_in=delay)


async def record_end(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    settlement: Settlement,
    *,
    kind: AnyDirectiveType | None,
    running: RunningExecution | None,
) -> UUID | None:
    """What follows from an attempt's end, in the transaction that settles it: the execution's id.

    Ends or re-opens the execution, adds its last line, and lets the type clean up after a failure.
    ``running`` is unset when the attempt's worker is gone, or where there was no attempt.
    """
    execution_id = running.id if running else await _execution_of(session, directive.id)
    message = redact(settlement.error_message or "")
    if execution_id is not None:
        await _end_execution(session, execution_id, directive, settlement, message, running)
    if kind is not None and settlement.state in ("failed", "unknown", "cancelled"):
        failure = Failure(settlement.state, settlement.error_kind or "unknown", message)
        await _clean_up(session, tenant, directive, kind, failure)
    return execution_id


async def _clean_up(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    kind: AnyDirectiveType,
    failure: Failure,
) -> None:
    """Let the type clean up; if that fails too, its part is undone and the directive's end stays."""
    if kind.after_failure is None:
        return
    try:
        async with session.begin_nested():
            params = kind.params.model_validate(directive.params)
            await kind.after_failure(session, tenant, directive, params, failure)
    except OperationalError:
        raise
    except Exception:
        logger.exception(
            "cleaning up after %s failed", kind.name, extra={"directive_id": str(directive.id)}
        )


async def _end_execution(
    session: AsyncSession,
    execution_id: UUID,
    directive: ClaimedDirective,
    settlement: Settlement,
    message: str,
    running: RunningExecution | None,
) -> None:
    number = f"attempt {directive.attempt} of {directive.max_attempts}"
    kept = running.result if running else None
    if settlement.state == "pending":
        await executions.wait_again(
            session,
            execution_id,
            error_kind=settlement.error_kind or "unknown",
            error_message=message,
        )
        line = f"{number} failed ({settlement.error_kind}): {message}"
        await executions.log(
            session, execution_id, "warning", line, retry_in_seconds=settlement.retry_in
        )
        return
    succeeded = settlement.state == "succeeded"
    await executions.finish(
        session,
        execution_id,
        _EXECUTION_ENDS.get(settlement.state, "failed"),
        result=kept if kept is not None else settlement.result,
        error_kind=settlement.error_kind,
        error_message=message or None,
        cost_usd=running.cost_usd if running else None,
        tokens_in=running.tokens_in if running else None,
        tokens_out=running.tokens_out if running else None,
    )
    if succeeded:
        await executions.log(session, execution_id, "info", f"{number} succeeded")
    elif settlement.state == "cancelled":
        await executions.log(session, execution_id, "warning", f"called off: {message}")
    else:
        line = f"{number} ended {settlement.state} ({settlement.error_kind}): {message}"
        await executions.log(session, execution_id, "error", line)


async def _execution_of(session: AsyncSession, directive_id: UUID) -> UUID | None:
    found: UUID | None = await session.scalar(
        select(Execution.id).where(
            Execution.directive_id == directive_id, Execution.finished_at.is_(None)
        )
    )
    return found
