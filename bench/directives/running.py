"""The whole platform on the benchmark's server, and Dagster's GraphQL as an operator has it."""

import contextlib
import io
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import psycopg
from rich.console import Console

from bench.platform import Bench
from fleetprompt.runtime.environment import CODE_LOCATION
from fleetprompt.runtime.platform import running_platform
from fleetprompt.settings import Settings

Found = TypeVar("Found")

_REPOSITORY = {"repositoryLocationName": CODE_LOCATION, "repositoryName": "__repository__"}
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclass(frozen=True)
class Run:
    """A Dagster run; times in seconds since 1970, ``ended_at`` unset while it lives."""

    id: str
    status: str
    created_at: float
    ended_at: float | None


@dataclass(frozen=True)
class Partitions:
    """How many keys an asset's grid has, and for how many there is a materialisation."""

    total: int
    materialized: int


@dataclass(frozen=True)
class Dagster:
    """A running Dagster instance; ``pids`` are those of the platform's processes, by name."""

    url: str
    pids: Mapping[str, int]

    def launch(self, job: str, config: dict[str, Any]) -> str:
        """The id of a run put into the queue."""
        params = {"selector": {**_REPOSITORY, "jobName": job}, "runConfigData": config}
        query = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
          __typename ... on LaunchRunSuccess { run { runId } } } }"""
        launched = self.ask(query, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def runs(self, job: str | None = None) -> list[Run]:
        """The latest runs, of this job or of all."""
        query = """query ($filter: RunsFilter) { runsOrError(filter: $filter, limit: 50) {
          ... on Runs { results { runId status creationTime endTime } } } }"""
        found = self.ask(query, filter={"pipelineName": job})["runsOrError"]["results"]
        return [
            Run(one["runId"], one["status"], one["creationTime"], one["endTime"]) for one in found
        ]

    def is_idle(self) -> bool:
        """Whether no run is live."""
        return all(run.status in _ENDED for run in self.runs())

    def end_runs(self, job: str) -> None:
        """Have the job's live runs ended, and wait until they are."""
        query = """mutation ($run: String!) { terminateRun(runId: $run) { __typename } }"""
        for run in self.runs(job):
            if run.status not in _ENDED:
                self.ask(query, run=run.id)
        wait(
            f"the end of all runs of {job}",
            lambda: all(run.status in _ENDED for run in self.runs(job)),
        )

    def stop_sensor(self, name: str) -> None:
        """Have a sensor rest."""
        query = """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
          ... on Sensor { id } } }"""
        selector = {**_REPOSITORY, "sensorName": name}
        sensor = self.ask(query, selector=selector)["sensorOrError"]
        stopped = self.ask(
            "mutation ($id: String!) { stopSensor(id: $id) { __typename } }", id=sensor["id"]
        )["stopSensor"]
        assert stopped["__typename"] == "StopSensorMutationResult", stopped

    def stop_schedule(self, name: str) -> None:
        """Have a schedule rest."""
        query = """query ($selector: ScheduleSelector!) { scheduleOrError(scheduleSelector: $selector) {
          ... on Schedule { id } } }"""
        selector = {**_REPOSITORY, "scheduleName": name}
        schedule = self.ask(query, selector=selector)["scheduleOrError"]
        stopped = self.ask(
            "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }",
            id=schedule["id"],
        )["stopRunningSchedule"]
        assert stopped["__typename"] == "ScheduleStateResult", stopped

    def partitions(self, asset: str) -> Partitions:
        """The asset's grid."""
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
          ... on AssetNode { partitionStats { numPartitions numMaterialized } } } }"""
        found = self.ask(query, key={"path": [asset]})["assetNodeOrError"]["partitionStats"]
        return Partitions(found["numPartitions"], found["numMaterialized"])

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer's data; RuntimeError if the webserver refuses the question."""
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=120
        )
        answer.raise_for_status()
        found = answer.json()
        if found.get("errors"):
            raise RuntimeError(f"GraphQL: {found['errors'][0]['message']}")
        return found["data"]


@contextlib.contextmanager
def running(console: Console, bench: Bench) -> Iterator[Dagster]:
    """The platform with all its processes for the length of the block."""
    began = time.monotonic()
    log = io.StringIO()
    with running_platform(_settings(bench), log_stream=log) as platform:
        console.print(f"  the whole platform is up after {time.monotonic() - began:.0f} s")
        yield Dagster(platform.urls["dagster"], platform.pids)


def _settings(bench: Bench) -> Settings:
    return bench.settings.model_copy(
        update={
            "state_dir": bench.settings.state_dir / "running",
            "api_port": _free_port(),
            "dagster_port": _free_port(),
            "code_server_port": _free_port(),
            "log_format": "json",
        }
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(what: str, ask: Callable[[], Found], seconds: float = 120.0) -> Found:
    """Ask until the answer is true; RuntimeError if that takes too long."""
    ends = time.monotonic() + seconds
    while not (found := ask()):
        if time.monotonic() > ends:
            raise RuntimeError(f"{what} did not come within {seconds:g} s")
        time.sleep(0.1)
    return found


def query(bench: Bench, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """Rows of the benchmark's tenant, as the owner sees them."""
    with psycopg.connect(bench.server.owner_url) as connection:
        connection.execute("SELECT set_config('search_path', %s, false)", (bench.tenant.schema,))
        return connection.execute(statement.encode(), values).fetchall()
