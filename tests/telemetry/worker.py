"""A worker in a process of its own, as a drain is: ``python -m tests.telemetry.worker``."""

import asyncio

from fleetprompt.db.engine import Database
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.settings import Settings


async def main() -> None:
    """Drain once."""
    settings = Settings()
    async with (
        Database.application(settings) as database,
        DirectiveRunner(database, settings, owner="dagster:test") as runner,
    ):
        await runner.drain()


if __name__ == "__main__":
    asyncio.run(main())
