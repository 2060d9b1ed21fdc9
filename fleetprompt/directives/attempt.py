"""One attempt at a directive: run the handler and say what its end means."""

import asyncio
import logging
from typing import Any

from pydantic import ValidationError

from fleetprompt.db.text import is_storable_json
from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective, Settlement
from fleetprompt.directives.types import AnyDirectiveType, RetryPolicy
from fleetprompt.errors import (
    DatabaseUnavailableError,
    ErrorKind,
    FleetPromptError,
    OverloadedError,
    RateLimitedError,
)
from fleetprompt.telemetry import events, spans

logger = logging.getLogger("fleetprompt.directives")

_KIND_OF_PROBLEM: dict[type[FleetPromptError], ErrorKind] = {
    DatabaseUnavailableError: "network",
    OverloadedError: "network",
    RateLimitedError: "rate_limit",
}


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
        with events.handling(kind.name), spans.handling(context.tenant.slug, directive):
            async with asyncio.timeout(kind.timeout):
                result = await kind.handler(context, params)
        return succeeded(kind, result)
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


def succeeded(kind: AnyDirectiveType, result: dict[str, Any]) -> Settlement:
    """Success, unless PostgreSQL could not keep the result: the work is done, and is not done again."""
    if is_storable_json(result):
        return Settlement("succeeded", result=result)
    logger.error("the handler of %s gave a result that is not JSON or cannot be stored", kind.name)
    message = "the work was done, but what its handler says of it cannot be stored"
    return Settlement("unknown", error_kind="unknown", error_message=message)


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
