"""A site of a tenant, and widgets on its pages."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import FastAPI

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from fleetprompt.webchat.models import ChatSite
from tests.api.support import calling
from tests.api.webchat.widget import Widget, make_site


@pytest.fixture
async def site(database: Database, settings: Settings, tenant: Tenant) -> ChatSite:
    """A site that asks for no consent."""
    return await make_site(database, settings, tenant)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client without any key."""
    async with calling(app) as found:
        yield found


@pytest.fixture
def new_widget(client: httpx.AsyncClient, site: ChatSite) -> Callable[[], Widget]:
    """Makes widgets of different visitors on the site."""
    return lambda: Widget(client, site.site_key)


@pytest.fixture
def widget(new_widget: Callable[[], Widget]) -> Widget:
    """A widget on the site."""
    return new_widget()
