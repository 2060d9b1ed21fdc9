"""The digest's surroundings: a tenant's platform."""

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.packages.installed import Platform


@pytest.fixture
def platform(database: Database, settings: Settings, tenant: Tenant) -> Platform:
    """The platform as one tenant uses it."""
    return Platform(database, settings, tenant)
