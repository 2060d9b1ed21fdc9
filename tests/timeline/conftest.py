"""The digest's surroundings serve the timeline as well: it is the whole path that leaves a trail."""

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.packages.installed import Platform


@pytest.fixture
def platform(database: Database, settings: Settings, tenant: Tenant) -> Platform:
    """The platform as one tenant uses it."""
    return Platform(database, settings, tenant)
