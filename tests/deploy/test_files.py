"""The files of deploy/: they parse, name what exists, and open no door to the outside."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.run_coordinator import QueuedRunCoordinator

from fleetprompt.settings import Settings

UNITS = ("migrate", "api", "dagster-code", "dagster-webserver", "dagster-daemon", "celery-worker")


def units(repository: Path) -> dict[str, str]:
    return {
        name: (repository / f"deploy/systemd/fleetprompt-{name}.service").read_text()
        for name in UNITS
    }


def test_every_unit_is_sound(repository: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not there")
    files = []
    for name, content in units(repository).items():
        # The programs are where an installation has them, which is not here.
        runnable = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", content)
        files.append(tmp_path / f"fleetprompt-{name}.service")
        files[-1].write_text(runnable)
    found = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False
    )
    assert "fleetprompt" not in found.stderr, found.stderr


@pytest.mark.parametrize("folder", ["systemd", "compose"])
def test_every_variable_is_a_setting(repository: Path, folder: str) -> None:
    known = {f"FLEETPROMPT_{name.upper()}" for name in Settings.model_fields}
    known |= {"DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE"}
    text = (repository / f"deploy/{folder}/environment.example").read_text()
    names = set(re.findall(r"(?m)^([A-Z_]+)=", text))
    assert names <= known, names - known
    assert "FLEETPROMPT_DAGSTER_DATABASE_URL=postgresql+psycopg2://" in text


def test_dagsters_doors_are_on_loopback(repository: Path) -> None:
    """Trap 25."""
    found = units(repository)
    for name, port in (("dagster-webserver", 3000), ("dagster-code", 4000), ("api", 8000)):
        command = re.search(r"(?m)^ExecStart=(.*)$", found[name])
        assert command is not None
        assert re.search(rf"127\.0\.0\.1 (-p|--port) {port}", command[1]), name
    compose: Any = yaml.safe_load((repository / "deploy/compose/compose.yaml").read_text())
    for name, service in compose["services"].items():
        for published in service.get("ports", []):
            assert published.startswith("127.0.0.1:"), name
    values: Any = yaml.safe_load((repository / "deploy/helm/values.yaml").read_text())
    assert values["ingress"]["enabled"] is False
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP"


def test_compose_has_every_process_and_exactly_one_daemon(repository: Path) -> None:
    compose: Any = yaml.safe_load((repository / "deploy/compose/compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"postgres", "migrate", "api", "code", "webserver", "daemon"}
    for name in ("api", "code", "webserver", "daemon", "migrate"):
        assert services[name]["secrets"] == ["master_key"]
    for name in ("code", "webserver", "daemon"):
        assert "replicas" not in str(services[name])
    workspace: Any = yaml.safe_load((repository / "deploy/compose/workspace.yaml").read_text())
    [location] = workspace["load_from"]
    assert location["grpc_server"]["host"] in services


def test_helm_values_are_what_the_chart_reads(repository: Path) -> None:
    """Trap 1 and 15: psycopg2's scheme; monitoring that frees what a dead run held."""
    values: Any = yaml.safe_load((repository / "deploy/helm/values.yaml").read_text())
    assert set(values) <= {
        *("global", "dagster-user-deployments", "runLauncher", "dagsterDaemon"),
        *("dagsterWebserver", "ingress", "telemetry", "rabbitmq", "redis", "postgresql"),
        *("generatePostgresqlPasswordSecret", "retention"),
    }
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    assert values["postgresql"]["enabled"] is False
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    assert list(values["runLauncher"]["config"]) == ["k8sRunLauncher"]
    monitoring = values["dagsterDaemon"]["runMonitoring"]
    shipped: Any = yaml.safe_load((repository / "dagster.yaml").read_text())
    assert monitoring["enabled"] is True
    assert (
        monitoring["freeSlotsAfterRunEndSeconds"]
        == shipped["run_monitoring"]["free_slots_after_run_end_seconds"]
    )
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"][1] == "fleetprompt_dagster.definitions"


def test_helm_limits_retries_and_retention_are_those_of_the_shipped_instance(
    repository: Path,
) -> None:
    """What the chart is not told it leaves without a limit, and ticks for ever."""
    values: Any = yaml.safe_load((repository / "deploy/helm/values.yaml").read_text())
    shipped: Any = yaml.safe_load((repository / "dagster.yaml").read_text())
    daemon = values["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    runs = shipped["concurrency"]["runs"]
    assert queue["maxConcurrentRuns"] >= runs["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == runs["tag_concurrency_limits"]
    assert daemon["runRetries"] == {
        "enabled": shipped["run_retries"]["enabled"],
        "maxRetries": shipped["run_retries"]["max_retries"],
        "retryOnAssetOrOpFailure": shipped["run_retries"]["retry_on_asset_or_op_failure"],
    }
    for kind in ("schedule", "sensor"):
        days = shipped["retention"][kind]["purge_after_days"]
        assert values["retention"][kind]["purgeAfterDays"] == days
    # The chart writes these under the names that the release reads.
    QueuedRunCoordinator(
        max_concurrent_runs=queue["maxConcurrentRuns"],
        tag_concurrency_limits=queue["tagConcurrencyLimits"],
        dequeue_interval_seconds=queue["dequeueIntervalSeconds"],
        dequeue_use_threads=queue["dequeueUseThreads"],
        dequeue_num_workers=queue["dequeueNumWorkers"],
    )


def test_workers_read_the_address_that_the_runs_read_and_keep_no_step_from_others(
    repository: Path,
) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", _WORKER_SETTINGS],
        env={
            **os.environ,
            "PYTHONPATH": str(repository / "deploy/celery"),
            "FLEETPROMPT_CELERY_BROKER": "redis://:secret@127.0.0.1:1/0",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    address = "redis://:secret@127.0.0.1:1/0"
    assert shown.stdout.split() == [address, address, "1", "True", "dagster"]
    assert "celery_broker" in Settings.model_fields
    assert "PYTHONPATH=/etc/fleetprompt\n" in units(repository)["celery-worker"]


_WORKER_SETTINGS = """
from dagster_celery.app import app
found = app.conf
print(found.broker_url, found.result_backend, found.worker_prefetch_multiplier,
      found.worker_disable_prefetch, found.task_default_queue)
"""


def test_the_image_has_dagster_pinned_and_no_secret_of_the_folder_it_is_built_in(
    repository: Path,
) -> None:
    recipe = (repository / "deploy/compose/Dockerfile").read_text()
    assert "--require-hashes -r requirements/platform.txt" in recipe
    pins = (repository / "requirements/platform.txt").read_text()
    for name in ("dagster", "dagster-webserver", "dagster-postgres", "psycopg2-binary", "uvicorn"):
        assert re.search(rf"(?m)^{name}==", pins), name
    first, *rest = [
        line
        for line in (repository / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    allowed = {line[1:] for line in rest if line.startswith("!")}
    # Where the secrets and the state of a source tree are.
    assert not allowed & {"deploy", ".fleetprompt", ".git", ".venv", "."}
    copied = {"requirements/platform.txt", "widget", "."}
    assert set(re.findall(r"(?m)^COPY (?!--from)(\S+)", recipe)) == copied


def test_dagsters_home_is_made_and_its_database_created(repository: Path) -> None:
    """Nothing of what the processes need is left to be guessed."""
    compose: Any = yaml.safe_load((repository / "deploy/compose/compose.yaml").read_text())
    services = compose["services"]
    given = (repository / "deploy/compose/environment.example").read_text()
    [home] = re.findall(r"(?m)^DAGSTER_HOME=(.*)$", given)
    # One folder for all containers: the UI shows what runs in another one wrote.
    for name in ("code", "webserver", "daemon", "migrate"):
        volumes = [one.split(":")[1] for one in services[name]["volumes"]]
        assert any(Path(home).is_relative_to(volume) for volume in volumes), name
    assert 'cp dagster.yaml "$$DAGSTER_HOME/"' in services["migrate"]["command"][-1]
    [database] = re.findall(r"(?m)^FLEETPROMPT_DAGSTER_DATABASE_URL=.*/(\w+)$", given)
    script = (repository / "deploy/compose/dagster-database.sql").read_text()
    assert f"CREATE DATABASE {database};" in script
    assert any("docker-entrypoint-initdb.d" in one for one in services["postgres"]["volumes"])
    migrate = units(repository)["migrate"]
    assert "/opt/fleetprompt/dagster.yaml ${DAGSTER_HOME}/dagster.yaml" in migrate


def test_units_come_up_by_themselves_when_the_database_is_late(repository: Path) -> None:
    """A failed migration fails no other unit for good, and no unit is given up."""
    for name, content in units(repository).items():
        assert "Requires=" not in content, name
        assert "StartLimitIntervalSec=0" in content, name
        assert re.search(r"(?m)^Restart=(on-failure|always)$", content), name
        assert "StateDirectory=fleetprompt" in content, name


def test_every_command_is_one_that_is_installed(repository: Path) -> None:
    folder = Path(sys.executable).parent
    for name, content in units(repository).items():
        for program in re.findall(r"(?m)^ExecStart=/opt/fleetprompt/\.venv/bin/(\S+)", content):
            assert (folder / program).exists(), f"{name}: {program}"
    compose: Any = yaml.safe_load((repository / "deploy/compose/compose.yaml").read_text())
    for name in ("api", "code", "webserver", "daemon"):
        assert (folder / compose["services"][name]["command"][0]).exists(), name
