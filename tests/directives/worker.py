"""A worker in a process of its own, for being killed and stopped: ``python -m tests.directives.worker``.

Its directive type says ``began`` with the attempt's number, waits for a line on standard input, and
returns who it was. At the end it prints each outcome's state.
"""

import asyncio
import sys
from typing import Any

from fleetprompt.db.engine import Database
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.types import DirectiveParams, DirectiveType
from fleetprompt.settings import Settings

LEASE_SECONDS = 1.0


async def wait_for_word(context: HandlerContext, params: DirectiveParams) -> dict[str, Any]:
    """Hold the directive until told to go on."""
    sys.stdout.write(f"began {context.directive.attempt}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    return {"by": "the other process"}


async def main() -> None:
    """Drain once."""
    types = {"test.work": DirectiveType("test.work", "Waits.", DirectiveParams, wait_for_word)}
    settings = Settings()
    async with (
        Database.application(settings) as database,
        DirectiveRunner(
            database, settings, owner="other", types=types, lease_seconds=LEASE_SECONDS
        ) as runner,
    ):
        for outcome in await runner.drain():
            sys.stdout.write(f"{outcome.state}\n")


if __name__ == "__main__":
    asyncio.run(main())
