"""What assets, ops, sensors and schedules are given to reach the platform.

The domain is asynchronous; Dagster calls plain functions. ``PlatformResource.open`` is the bridge:
an event loop and a database for as long as its block lasts. Tests pass a subclass with other settings
or another clock to ``build_defs``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import dagster as dg
from pydantic import Field

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings, get_settings

Result = TypeVar("Result")


@dataclass(frozen=True)
class OpenPlatform:
    """The platform while a block lasts: its settings, its database, and the loop they live in."""

    settings: Settings
    database: Database
    _runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run the coroutine to its end; tasks that it left go on at the next call."""
        return self._runner.run(work)


class PlatformResource(dg.ConfigurableResource[Any]):
    """Settings, clock, lake and database of the platform, as the environment says."""

    application_name: str = Field(
        default="fleetprompt-dagster",
        description="Name of this process's connections in PostgreSQL's `pg_stat_activity`.",
    )

    patience_seconds: float = Field(
        default=4.0,
        description="How long a sensor that finds nothing may wait for something to come.",
    )

    def settings(self) -> Settings:
        """The settings of this process."""
        return get_settings()

    def now(self) -> datetime:
        """The current instant, with zone UTC."""
        return system_clock()

    @contextmanager
    def open(self) -> Iterator[OpenPlatform]:
        """An event loop and connections of its own, closed with the block."""
        settings = self.settings()
        with asyncio.Runner() as runner:
            database = Database.application(settings, name=self.application_name)
            try:
                yield OpenPlatform(settings, database, runner)
            finally:
                runner.run(database.close())

    def run(self, work: Callable[[Database], Awaitable[Result]]) -> Result:
        """The result of one piece of work on the database."""

        async def whole(database: Database) -> Result:
            return await work(database)

        with self.open() as platform:
            return platform.run(whole(platform.database))
