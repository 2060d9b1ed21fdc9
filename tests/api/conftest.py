"""A running application on real PostgreSQL."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.support import Keys, calling


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The application between its start and its end."""
    made = create_app(settings)
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
def keys(database: Database, settings: Settings) -> Keys:
    """Makes tokens."""
    return Keys(database, settings)


@pytest.fixture
async def owner_client(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with an owner's key of ``tenant``."""
    async with calling(app, await keys.user(tenant)) as client:
        yield client
