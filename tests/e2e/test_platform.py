"""The whole platform as its users meet it: every process real, only Mattermost a stand-in.

One platform serves all tests here; they run in order, as the README tells it.
"""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from demo.story import Api, Told, tell
from fleetprompt.db.urls import libpq_url
from fleetprompt.runtime.environment import workspace_file
from fleetprompt_dagster.definitions import defs
from tests.e2e.conftest import CANARY, World
from tests.e2e.dagster_pages import DagsterPages, wait
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::dagster.BetaWarning")]


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


def test_dagster_shows_the_tenants_day(pages: DagsterPages, told: Told) -> None:
    query = """query ($path: [String!]!) { assetNodeOrError(assetKey: {path: $path}) {
      ... on AssetNode { assetMaterializations(limit: 20) { partition metadataEntries { label } } } } }"""

    def materialised(asset: str) -> list[Any]:
        node = pages.ask(query, path=[asset])["assetNodeOrError"]
        found = node.get("assetMaterializations", [])
        return [one for one in found if "acme" in (one["partition"] or "")]

    for asset in ("signals", "daily_counts"):
        found = wait(f"{asset} of acme", partial(materialised, asset))
        labels = {entry["label"] for entry in found[0]["metadataEntries"]}
        assert "dagster/row_count" in labels


def test_every_asset_check_job_schedule_and_sensor_loads(pages: DagsterPages, told: Told) -> None:
    found, expected = pages.repository(), defs.get_repository_def()
    assets = {tuple(node["assetKey"]["path"]): node for node in found["assetNodes"]}
    assert set(assets) == {tuple(key.path) for key in expected.asset_graph.get_all_asset_keys()}
    checks = {
        (path[0], check["name"])
        for path, node in assets.items()
        for check in node["assetChecksOrError"]["checks"]
    }
    assert checks == {
        (key.asset_key.path[0], key.name) for key in expected.asset_graph.asset_check_keys
    }
    assert {job["name"] for job in found["jobs"]} == {job.name for job in expected.get_all_jobs()}
    for job in found["jobs"]:
        assert pages.launchpad(job["name"])["solids"], job
    schedules = {one["name"]: one for one in found["schedules"]}
    assert set(schedules) == {one.name for one in expected.schedule_defs}
    for name, schedule in schedules.items():
        [next_tick, _] = schedule["futureTicks"]["results"]
        tick = pages.test_schedule(name, next_tick["timestamp"])
        assert tick["skipReason"] or tick["runRequests"], name
    assert {one["name"] for one in found["sensors"]} == {one.name for one in expected.sensor_defs}

    def ticked() -> list[Any] | None:
        sensors = pages.repository()["sensors"]
        return sensors if all(one["sensorState"]["ticks"] for one in sensors) else None

    for sensor in wait("a tick of each sensor", ticked):
        assert sensor["sensorState"]["status"] == "RUNNING", sensor
        assert all(tick["status"] != "FAILURE" for tick in sensor["sensorState"]["ticks"]), sensor


@pytest.fixture(scope="module")
def launched(world: World, acme: Api, told: Told, pages: DagsterPages) -> dict[str, str]:
    """A run of each job, by its name: all at once, but the drain leaves the others their directives."""
    pages.stop_sensor("due_directives")
    pages.end_runs("drain_directives")
    [installation] = acme.call("GET", "/api/v1/installations")["items"]
    config = {**installation["config"], "schedule_time": "07:45"}
    asked = acme.call(
        "PUT", f"/api/v1/installations/{installation['id']}/config", json={"config": config}
    )
    with psycopg.connect(world.platform.owner_url) as connection:
        slot = connection.execute(
            "SELECT min(local_date)::text FROM fleetprompt.schedule_slots"
            " WHERE tenant_schema = 'org_acme' AND state = 'planned'"
        ).fetchone()
    assert slot is not None
    today = datetime.now(UTC).date().isoformat()
    own = {"installation": installation["id"], "tenant": "acme", "local_date": slot[0]}
    configs: dict[str, dict[str, Any]] = {
        "check_everything": {},
        "keep_digests": {},
        "keep_house": {"ops": {"apply_every_retention": {"config": {"rest": 0.0}}}},
        "rebuild_stale_days": {
            "ops": {"rebuild_tenant_days": {"config": {"days": [{"tenant": "acme", "day": today}]}}}
        },
        "run_directive": {
            "ops": {
                "work_directive": {
                    "config": {"tenant": "acme", "directive_id": asked["directive_id"]}
                }
            }
        },
        "send_digests": {"ops": {"send_due_digests": {"config": {"slots": [own]}}}},
    }
    runs = {job: _launched(pages.launch(job, config)) for job, config in configs.items()}
    one = pages.run_ended(runs["run_directive"])
    assert one.status == "SUCCESS", one
    drain = {"ops": {"drain": {"config": {"linger_seconds": 0.0}}}}
    return {**runs, "drain_directives": _launched(pages.launch("drain_directives", drain))}


def _launched(answer: Any) -> str:
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def test_every_job_and_asset_runs_from_its_button(
    pages: DagsterPages, launched: dict[str, str]
) -> None:
    repository = pages.repository()
    jobs = {job["name"] for job in repository["jobs"]}
    # Dagster's own job of assets is what the backfill runs.
    assert set(launched) == {job for job in jobs if not job.startswith("__")}
    days = [(datetime.now(UTC).date() - timedelta(days=ago)).isoformat() for ago in (0, 1)]
    backfill = pages.backfill(
        [
            node["assetKey"]["path"][0]
            for node in repository["assetNodes"]
            if node["isMaterializable"]
        ],
        [f"{day}|acme" for day in days],
    )
    for job, run_id in launched.items():
        run = pages.run_ended(run_id)
        assert (run.job, run.status) == (job, "SUCCESS"), run
        assert run.tags["fleetprompt/purpose"]
    ended = pages.backfill_ended(backfill)
    assert ended["status"] == "COMPLETED_SUCCESS", ended
    # A run for the partitions of all assets together, not one for each.
    assert [run["status"] for run in ended["runs"]] == ["SUCCESS"]


def test_dagsters_own_runs_are_signals_of_the_operations_tenant(
    world: World, launched: dict[str, str]
) -> None:
    run_id = launched["check_everything"]

    def last_of_this_run() -> list[Any]:
        answer = world.operator.call(
            "GET", "/api/v1/signals", params={"type": "workflow.run.*", "limit": 50}
        )
        own = [one for one in answer["items"] if one["data"]["run_id"] == run_id]
        return [one for one in own if one["type"] != "workflow.run.started"]

    [last] = wait("the run's last signal", last_of_this_run)
    assert last["type"] == "workflow.run.completed"
    assert last["data"]["job"] == "check_everything"


def test_trap_25_a_read_only_webserver_shows_everything_and_launches_nothing(
    world: World, pages: DagsterPages, launched: dict[str, str]
) -> None:
    port = free_port()
    command = [
        *(sys.executable, "-m", "dagster_webserver", "--read-only", "--port", str(port)),
        *("--workspace", str(workspace_file(world.settings)), "--log-level", "warning"),
    ]
    with subprocess.Popen(command, env=dict(world.platform.environment)) as webserver:
        looking = DagsterPages(f"http://127.0.0.1:{port}")
        try:
            wait("the read-only webserver", looking.answers)
            assert looking.repository()["assetNodes"]
            refused = looking.launch("keep_digests", {})
            assert refused["__typename"] == "UnauthorizedError", refused
        finally:
            looking.close()
            webserver.terminate()


def test_the_daemons_log_holds_no_warning(world: World, launched: dict[str, str]) -> None:
    """After every job has run; it tells its information too, so silence is not for want of a level."""
    lines = [json.loads(line) for line in world.log.getvalue().splitlines()]
    of_daemon = [line for line in lines if line["process"] == "daemon"]
    assert len(of_daemon) > 10
    assert [line for line in of_daemon if _is_warning(line)] == []


# What Dagster itself says: once, when the daemon that retries lost runs starts on an empty database; and of a
# schedule without partitions that missed a minute, as it may on a machine that is busy with other tests.
_UPSTREAM = ("No cursor for event type", "due_digests has no partition set, so not trying")


def _is_warning(line: dict[str, Any]) -> bool:
    told = json.dumps(line)
    if line.get("event", "").startswith(_UPSTREAM):
        return False
    return line.get("level", "info").lower() not in ("debug", "info") or any(
        word in told for word in ("Warning:", "Traceback", "Error:")
    )


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
    done = subprocess.run(
        [sys.executable, "-m", "fleetprompt.cli.main", "doctor", "--json"],
        env=dict(world.platform.environment),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
