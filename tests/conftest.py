"""What every test may use: a real PostgreSQL of its own a worker, a platform, tenants, others' servers."""

import base64
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from fleetprompt.db.engine import Database
from fleetprompt.db.migrate import migrate
from fleetprompt.ids import new_id
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.doubles.gmail import Gmail, running_gmail
from tests.doubles.mattermost import RunningMattermost, running_mattermost
from tests.doubles.smtp import MailServer, running_smtp


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, which mostly waits, so that the others run beside it."""
    items.sort(key=lambda item: "e2e" not in item.path.parts)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server of this worker's own; roles are the server's, so it is not shared.

    Not below pytest's folder, which every other pytest that starts closes to all but its own user. Nobody
    needs its data after a power failure, or once it has been stopped.
    """
    quick = {"fsync": "off", "full_page_writes": "off"}
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder) / "data", options=quick) as server,
    ):
        yield server
        server.stop(grace=0.0)


@pytest.fixture(scope="session")
def settings(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a platform on this worker's server, migrated."""
    made = Settings(
        state_dir=tmp_path_factory.mktemp("state"),
        database_url=postgres.owner_url,
        master_key=base64.b64encode(os.urandom(32)).decode(),
        master_key_source="env",
        allowed_private_networks=("127.0.0.0/8",),
        allow_plain_http=True,
    )
    migrate(made)
    return made


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The application's login."""
    async with Database.application(settings) as found:
        yield found


@pytest.fixture
async def new_tenant(settings: Settings) -> Callable[[], Awaitable[Tenant]]:
    """Makes a tenant with a slug that no other test has."""

    async def make() -> Tenant:
        slug = f"t{new_id().hex[-12:]}"
        return await create_tenant(settings, slug=slug, name=f"Tenant {slug}")

    return make


@pytest.fixture
async def tenant(new_tenant: Callable[[], Awaitable[Tenant]]) -> Tenant:
    """A tenant of this test's own."""
    return await new_tenant()


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Database]:
    """The owner's login, which sees everything: for looking, never for doing."""
    async with Database.owner(settings) as found:
        yield found


@pytest.fixture
def mattermost() -> Iterator[RunningMattermost]:
    """A Mattermost of this test's own."""
    with running_mattermost() as running:
        yield running


@pytest.fixture
def smtp() -> Iterator[MailServer]:
    """A mail server of this test's own, which asks for neither login nor TLS."""
    with running_smtp() as running:
        yield running


@pytest.fixture
def gmail() -> Iterator[Gmail]:
    """A Gmail of this test's own."""
    with running_gmail() as running:
        yield running


@pytest.fixture
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).parent.parent
