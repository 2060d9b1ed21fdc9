"""A worker that drains, as a process that is made to be killed, and the work that it does."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from fleetprompt.db.engine import Database
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import (
    AnyDirectiveType,
    DirectiveParams,
    DirectiveType,
    RetryPolicy,
)
from fleetprompt.settings import Settings

# Short, so that what a killed worker held is soon taken up again.
LEASE_SECONDS = 3.0
OWNER = "CHAOS_OWNER"
EFFECTS_URL = "CHAOS_EFFECTS_URL"

_SOON = RetryPolicy(max_attempts=200, first_bound=0.2, longest_bound=0.5)
# Two attempts, so that two kills leave nobody who knows what was done.
FRAGILE = RetryPolicy(max_attempts=2, first_bound=0.2, longest_bound=0.5)


class Work(DirectiveParams):
    """How long it takes, in seconds."""

    seconds: float


def _did(context: HandlerContext) -> dict[str, Any]:
    return {"attempt": context.directive.attempt, "by": os.environ[OWNER]}


async def _wait(context: HandlerContext, params: Work) -> dict[str, Any]:
    await asyncio.sleep(params.seconds)
    return _did(context)


async def _compute(context: HandlerContext, params: Work) -> dict[str, Any]:
    """Never yields, so that nothing else on this loop happens meanwhile."""
    ends = time.monotonic() + params.seconds
    while time.monotonic() < ends:
        sum(range(1000))
    return _did(context)


async def _fail_at_first(context: HandlerContext, params: Work) -> dict[str, Any]:
    if context.directive.attempt <= 2:
        raise DirectiveFailed("network", "refused")
    return await _wait(context, params)


async def _have_an_effect(context: HandlerContext, params: Work) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        try:
            await client.post(
                os.environ[EFFECTS_URL],
                headers={"Idempotency-Key": str(context.directive.id)},
                content=b"once",
            )
        except httpx.TransportError as error:
            raise DirectiveFailed("network", type(error).__name__) from error
    return await _wait(context, params)


TYPES: Mapping[str, AnyDirectiveType] = {
    kind.name: kind
    for kind in (
        DirectiveType("chaos.quick", "Does nothing.", Work, _wait, retry=_SOON),
        DirectiveType("chaos.slow", "Waits.", Work, _wait, retry=_SOON),
        DirectiveType("chaos.busy", "Computes.", Work, _compute, retry=_SOON),
        DirectiveType("chaos.retry", "Fails twice.", Work, _fail_at_first, retry=_SOON),
        DirectiveType("chaos.effect", "Has an effect.", Work, _have_an_effect, retry=_SOON),
        DirectiveType("chaos.fragile", "Waits.", Work, _wait, retry=FRAGILE),
    )
}


async def _drain(settings: Settings, owner: str) -> None:
    async with (
        Database.application(settings) as database,
        DirectiveRunner(
            database,
            settings,
            owner=owner,
            concurrency=8,
            lease_seconds=LEASE_SECONDS,
            poll_seconds=0.5,
            types=TYPES,
        ) as runner,
    ):
        await runner.drain(linger_seconds=120.0, most_seconds=900.0)


def work(settings: Settings, owner: str, effects_url: str, last_words: Path) -> None:
    """Drain until killed; what else ends it is written to ``last_words``."""
    os.environ[OWNER], os.environ[EFFECTS_URL] = owner, effects_url
    sys.stderr = last_words.open("w")
    logging.disable(logging.CRITICAL)
    asyncio.run(_drain(settings, owner))
