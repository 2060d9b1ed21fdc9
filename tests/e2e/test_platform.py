"""The whole platform as its users meet it: every process real, only Mattermost a stand-in.

One platform serves all tests here; they run in order, as the README tells it.
"""

import asyncio
import io
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from demo.story import Api, Told, create_tenant, tell
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import libpq_url
from fleetprompt.runtime.platform import Platform, running_platform
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.service import get_tenant
from tests.doubles.mattermost import RunningMattermost, running_mattermost
from tests.ports import free_port

pytestmark = pytest.mark.slow

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


def test_run_now_posts_within_thirty_seconds(world: World, told: Told) -> None:
    assert told.run_now_seconds <= 30
    posts = world.mattermost.posts
    assert len(posts) == 1
    assert posts[0].message == told.digest
    assert "Acme" in told.digest


def test_execution_directive_and_signals_tell_the_story(told: Told) -> None:
    assert told.execution["state"] == "completed"
    assert told.execution["correlation_id"] == f"digest:acme:manual:{told.execution['id']}"
    assert told.directive["state"] == "succeeded"
    assert [t["to_state"] for t in told.directive["transitions"]] == [
        *("requested", "pending", "running", "succeeded")
    ]
    assert {
        "mattermost.digest.requested",
        "mattermost.digest.generated",
        "mattermost.message.posted",
        "directive.succeeded",
    } <= set(told.signal_types)


def test_telling_it_again_posts_nothing(world: World, acme: Api, told: Told) -> None:
    again = tell(acme, "acme", world.mattermost.hook_url, "America/New_York", world.answers.append)
    assert again.already_posted
    assert again.digest == told.digest
    assert len(world.mattermost.posts) == 1


def _wait(what: str, ask: Any, seconds: float = 120) -> Any:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := ask():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what} did not come within {seconds} s")


def _graphql(world: World, query: str, **variables: Any) -> Any:
    answer = httpx.post(
        f"{world.platform.urls['dagster']}/graphql",
        json={"query": query, "variables": variables},
        timeout=30,
    )
    answer.raise_for_status()
    return answer.json()["data"]


def test_dagster_shows_the_tenants_day(world: World, told: Told) -> None:
    query = """query ($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) {
      ... on AssetNode { assetMaterializations(limit: 20) { partition metadataEntries { label } } } } }"""

    def materialised(asset: str) -> list[Any]:
        node = _graphql(world, query, path=[asset])["assetNodeOrError"]
        found = node.get("assetMaterializations", [])
        return [one for one in found if "acme" in (one["partition"] or "")]

    for asset in ("signals", "daily_counts"):
        found = _wait(f"{asset} of acme", lambda asset=asset: materialised(asset), 180)
        labels = {entry["label"] for entry in found[0]["metadataEntries"]}
        assert "dagster/row_count" in labels


def test_dagsters_own_runs_are_signals_of_the_operations_tenant(world: World, told: Told) -> None:
    launched = _graphql(
        world,
        """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
          __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
        params={
            "selector": {
                "repositoryLocationName": "fleetprompt",
                "repositoryName": "__repository__",
                "jobName": "check_everything",
            },
            "runConfigData": {},
        },
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def of_this_run() -> list[Any]:
        answer = world.operator.call(
            "GET", "/api/v1/signals", params={"type": "workflow.run.*", "limit": 50}
        )
        return [one for one in answer["items"] if one["data"]["run_id"] == run_id]

    found = _wait(
        "the run's last signal",
        lambda: [one for one in of_this_run() if one["type"] != "workflow.run.started"],
        180,
    )
    assert found[0]["type"] == "workflow.run.completed"
    assert found[0]["data"]["job"] == "check_everything"


def test_a_canary_secret_is_nowhere_in_clear(world: World, acme: Api, told: Told) -> None:
    """Table, log, signal, Dagster event, HTTP answer (platform trap T25)."""
    assert any(CANARY in post.path for post in world.mattermost.requests), "the secret was used"
    answers = [
        json.dumps(acme.call("GET", path))
        for path in (
            *("/api/v1/installations", "/api/v1/signals?limit=200", "/api/v1/executions"),
            *("/api/v1/directives", "/api/v1/me", "/api/v1/keys"),
        )
    ]
    answers += [
        json.dumps(acme.call("GET", f"/api/v1/installations/{item['id']}"))
        for item in acme.call("GET", "/api/v1/installations")["items"]
    ]
    assert not [text for text in answers if CANARY in text]
    assert CANARY not in world.log.getvalue()
    logged = [
        path
        for path in world.settings.state_dir.rglob("*")
        if path.is_file() and "pg" not in path.parts and _holds(path)
    ]
    assert logged == []
    for url in (
        world.platform.owner_url,
        libpq_url(world.platform.environment["FLEETPROMPT_DAGSTER_DATABASE_URL"]),
    ):
        assert _tables_with(url) == []


def _holds(path: Path) -> bool:
    return CANARY.encode() in path.read_bytes()


def _tables_with(url: str) -> list[str]:
    """Every table of the database whose text holds the canary."""
    found = []
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert len(tables) > 20
        for (table,) in tables:
            held = connection.execute(
                f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE %s", (f"%{CANARY}%",)
            ).fetchone()
            if held and held[0]:
                found.append(table)
    return found


def test_doctor_finds_nothing_wrong(world: World) -> None:
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "fleetprompt.cli.main", "doctor", "--json"],
        env=dict(world.platform.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
