"""The files of deploy/: they parse, name what exists, and open no door to the outside."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

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
        "generatePostgresqlPasswordSecret",
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


def test_celery_reads_what_the_runs_read(repository: Path) -> None:
    config: Any = yaml.safe_load((repository / "deploy/celery/celery.yaml").read_text())
    addresses = config["execution"]["config"]
    assert addresses["broker"] == addresses["backend"]
    assert "celery_broker" in Settings.model_fields
