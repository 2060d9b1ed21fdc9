"""What Dagster's pages ask the webserver, and what their buttons do: GraphQL as the UI speaks it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from fleetprompt.runtime.environment import CODE_LOCATION

_ERROR = "... on PythonError { message stack }"
_REPOSITORY = {"repositoryLocationName": CODE_LOCATION, "repositoryName": "__repository__"}
_ENDED = ("SUCCESS", "FAILURE", "CANCELED")

_WORKSPACE = f"""{{
  workspaceOrError {{ __typename ... on Workspace {{ locationEntries {{
    name loadStatus locationOrLoadError {{ __typename ... on RepositoryLocation {{ repositories {{
      name
      jobs {{ name description isAssetJob runTags {{ key value }} }}
      assetGroups {{ groupName }}
      allTopLevelResourceDetails {{ name }}
      assetNodes {{
        assetKey {{ path }} description groupName kinds isMaterializable isPartitioned
        owners {{ ... on TeamAssetOwner {{ team }} }}
        metadataEntries {{ label }} dependencyKeys {{ path }} dependedByKeys {{ path }}
        partitionDefinition {{ description type }} jobNames
        partitionStats {{ numPartitions numMaterialized }}
        assetChecksOrError {{ __typename ... on AssetChecks {{ checks {{
          name description jobNames canExecuteIndividually }} }} }}
      }}
      schedules {{ name description cronSchedule pipelineName defaultStatus
        scheduleState {{ status }} futureTicks(limit: 2) {{ results {{ timestamp }} }} }}
      sensors {{ name description minIntervalSeconds sensorType targets {{ pipelineName }}
        sensorState {{ status ticks(limit: 5) {{ status skipReason error {{ message }} }} }} }}
    }} }} {_ERROR} }} }} }} {_ERROR} }} }}"""

_LAUNCHPAD = f"""query ($selector: PipelineSelector!) {{
  pipelineOrError(params: $selector) {{ __typename ... on Pipeline {{
    name description solids {{ name }} modes {{ name resources {{ name }} }} }} {_ERROR} }}
  runConfigSchemaOrError(selector: $selector) {{ __typename
    ... on RunConfigSchema {{ rootConfigType {{ key }} allConfigTypes {{ key }} }} {_ERROR} }} }}"""

_DRY_RUN = f"""mutation ($selector: ScheduleSelector!, $at: Float!) {{
  scheduleDryRun(selectorData: $selector, timestamp: $at) {{ __typename
    ... on DryRunInstigationTick {{ evaluationResult {{
      skipReason runRequests {{ runKey tags {{ key value }} }} error {{ message stack }} }} }}
    {_ERROR} }} }}"""

_LAUNCH = f"""mutation ($params: ExecutionParams!) {{ launchPipelineExecution(executionParams: $params) {{
  __typename ... on LaunchRunSuccess {{ run {{ runId }} }} {_ERROR}
  ... on UnauthorizedError {{ message }}
  ... on RunConfigValidationInvalid {{ errors {{ message }} }} }} }}"""

_BACKFILL = f"""mutation ($params: LaunchBackfillParams!) {{
  launchPartitionBackfill(backfillParams: $params) {{ __typename
    ... on LaunchBackfillSuccess {{ backfillId }} {_ERROR} }} }}"""

_BACKFILL_STATUS = f"""query ($id: String!) {{ partitionBackfillOrError(backfillId: $id) {{ __typename
  ... on PartitionBackfill {{ status runs {{ runId status }} error {{ message }} }} {_ERROR} }} }}"""

_RUN = f"""query ($id: ID!) {{ runOrError(runId: $id) {{ __typename
  ... on Run {{ status jobName tags {{ key value }}
    eventConnection {{ events {{ ... on ExecutionStepFailureEvent {{ error {{ message }} }}
      ... on RunFailureEvent {{ message error {{ message }} }} }} }} }}
  {_ERROR} }} }}"""


@dataclass(frozen=True)
class Ended:
    """A run that ended, with its tags and what its failures say."""

    job: str
    status: str
    tags: Mapping[str, str]
    errors: Sequence[str]


class DagsterPages:
    """The UI without a browser. Whatever has a PythonError in it fails the test that asked."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=120)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def answers(self) -> bool:
        """Whether the webserver is up."""
        try:
            return self._client.get("/server_info").is_success
        except httpx.TransportError:
            return False

    def ask(self, query: str, **variables: Any) -> Any:
        """The answer's data."""
        answer = self._client.post("/graphql", json={"query": query, "variables": variables})
        answer.raise_for_status()
        found = answer.json()
        assert "errors" not in found, found["errors"]
        assert '"PythonError"' not in answer.text, answer.text[:3000]
        return found["data"]

    def repository(self) -> Any:
        """All that the code location offers, as the UI's lists and pages show it."""
        [location] = self.ask(_WORKSPACE)["workspaceOrError"]["locationEntries"]
        assert location["loadStatus"] == "LOADED", location
        [repository] = location["locationOrLoadError"]["repositories"]
        return repository

    def launchpad(self, job: str) -> Any:
        """A job's page: its graph and the schema of its config."""
        found = self.ask(_LAUNCHPAD, selector={**_REPOSITORY, "pipelineName": job})
        assert found["pipelineOrError"]["__typename"] == "Pipeline", found
        assert found["runConfigSchemaOrError"]["__typename"] == "RunConfigSchema", found
        return found["pipelineOrError"]

    def test_schedule(self, name: str, at: float) -> Any:
        """What the button *Test schedule* shows for an instant in seconds since 1970."""
        selector = {**_REPOSITORY, "scheduleName": name}
        tick = self.ask(_DRY_RUN, selector=selector, at=at)["scheduleDryRun"]
        assert tick["__typename"] == "DryRunInstigationTick", tick
        assert tick["evaluationResult"]["error"] is None, tick
        return tick["evaluationResult"]

    def stop_sensor(self, name: str) -> None:
        """Switch a sensor off, and let a tick that is under way end."""
        selector = {**_REPOSITORY, "sensorName": name}
        query = """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
          ... on Sensor { id sensorState { ticks(limit: 5) { status } } } } }"""
        sensor = self.ask(query, selector=selector)["sensorOrError"]["id"]
        stop = "mutation ($id: String!) { stopSensor(id: $id) { __typename } }"
        assert self.ask(stop, id=sensor)["stopSensor"]["__typename"] == "StopSensorMutationResult"

        def is_still() -> bool:
            state = self.ask(query, selector=selector)["sensorOrError"]["sensorState"]
            return all(tick["status"] != "STARTED" for tick in state["ticks"])

        wait(f"the last tick of {name}", is_still)

    def end_runs(self, job: str) -> None:
        """Terminate the job's live runs and wait until they are over."""
        query = """query ($job: String!) { runsOrError(filter: {pipelineName: $job}) {
          ... on Runs { results { runId status } } } }"""
        end = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"

        def live() -> list[str]:
            found = self.ask(query, job=job)["runsOrError"]["results"]
            return [one["runId"] for one in found if one["status"] not in _ENDED]

        for run_id in live():
            self.ask(end, id=run_id)
        wait(f"the end of {job}", lambda: not live())

    def launch(self, job: str, config: Mapping[str, Any]) -> Any:
        """The button *Launch run*: the answer, whatever it is."""
        params = {
            "selector": {**_REPOSITORY, "pipelineName": job},
            "runConfigData": json.dumps(config),
            "mode": "default",
        }
        return self.ask(_LAUNCH, params=params)["launchPipelineExecution"]

    def backfill(self, assets: Sequence[str], partitions: Sequence[str]) -> str:
        """The dialog *Materialize*: the id of the backfill."""
        params = {
            "assetSelection": [{"path": [asset]} for asset in assets],
            "partitionNames": list(partitions),
        }
        launched = self.ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_ended(self, backfill_id: str) -> Any:
        """The backfill's page, once it is over."""

        def over() -> Any:
            found = self.ask(_BACKFILL_STATUS, id=backfill_id)["partitionBackfillOrError"]
            return found if found["status"].startswith(("COMPLETED", "FAILED")) else None

        return wait("the end of the backfill", over)

    def run_ended(self, run_id: str) -> Ended:
        """The run's page, once it is over."""

        def over() -> Any:
            found = self.ask(_RUN, id=run_id)["runOrError"]
            return found if found["status"] in _ENDED else None

        found = wait("the end of the run", over)
        tags = {tag["key"]: tag["value"] for tag in found["tags"]}
        failures = [f"{event}" for event in found["eventConnection"]["events"] if event]
        return Ended(found["jobName"], found["status"], tags, failures)


def wait(what: str, ask: Callable[[], Any], seconds: float = 240.0) -> Any:
    """Ask until the answer is true."""
    ends = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < ends, f"{what} did not come within {seconds:g} s"
        time.sleep(0.5)
    return found
