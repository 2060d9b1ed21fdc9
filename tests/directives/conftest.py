"""Runners work for all tenants, so what earlier tests left in the queue is taken out of it."""

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database


@pytest.fixture(autouse=True)
async def _empty_queue(database: Database) -> None:
    async with database.platform() as session:
        await session.execute(text("DELETE FROM fleetprompt.directive_queue"))
