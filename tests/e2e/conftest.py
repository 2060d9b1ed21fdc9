"""A running platform with one tenant, and Dagster's pages: one for all tests of a module."""

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from demo.story import Api, Told, create_tenant, tell
from fleetprompt.db.engine import Database
from fleetprompt.runtime.platform import Platform, running_platform
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import get_tenant
from tests.doubles.mattermost import RunningMattermost, running_mattermost
from tests.e2e.dagster_pages import DagsterPages
from tests.ports import free_port

# The hook's id is the secret: whoever knows it can post.
CANARY = "canary7canary7canary7canar"


@dataclass
class World:
    platform: Platform
    mattermost: RunningMattermost
    log: io.StringIO
    operator: Api
    answers: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.platform.settings


async def operator_key(settings: Settings) -> str:
    async with Database.application(settings) as database, database.platform() as session:
        tenant = await get_tenant(session, settings.operations_tenant)
        request = KeyRequest(kind="user", name="end to end", role="owner")
        return (await issue_key(session, settings, tenant, request))[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = Settings(
        state_dir=tmp_path_factory.mktemp("e2e"),
        api_port=free_port(),
        dagster_port=free_port(),
        code_server_port=free_port(),
        log_level="DEBUG",
        log_format="json",
        allow_plain_http=True,
        allowed_private_networks=("127.0.0.0/8",),
        database_url=None,
    )
    log = io.StringIO()
    with (
        running_mattermost(hook_id=CANARY) as mattermost,
        running_platform(settings, log_stream=log) as platform,
    ):
        operator = Api(platform.urls["api"], asyncio.run(operator_key(platform.settings)))
        yield World(platform, mattermost, log, operator)
        operator.close()


@pytest.fixture(scope="module")
def acme(world: World) -> Iterator[Api]:
    api = Api(world.platform.urls["api"], create_tenant(world.operator, "acme", "Acme"))
    yield api
    api.close()


@pytest.fixture(scope="module")
def told(world: World, acme: Api) -> Told:
    return tell(acme, "acme", world.mattermost.hook_url, "America/New_York", world.answers.append)


@pytest.fixture(scope="module")
def pages(world: World) -> Iterator[DagsterPages]:
    found = DagsterPages(world.platform.urls["dagster"])
    yield found
    found.close()
