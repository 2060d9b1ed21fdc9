"""The shipped ``dagster.yaml`` and workspace, loaded by Dagster itself on a real PostgreSQL."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import yaml
from dagster import AssetKey, AssetMaterialization, DagsterInstance, RunsFilter
from dagster._core.workspace.load import location_origins_from_yaml_paths
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_shared.yaml_utils import load_yaml_from_path
from psycopg.conninfo import conninfo_to_dict

from fleetprompt.db.urls import libpq_url
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.runtime.environment import (
    dagster_url,
    ensure_dagster_database,
    environment,
    prepare_dagster_home,
    shipped_dagster_yaml,
    workspace_file,
)
from fleetprompt.settings import Settings

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with (
        tempfile.TemporaryDirectory(prefix="fleetprompt-test-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as running,
    ):
        yield running


@pytest.fixture(scope="module")
def instance(
    server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DagsterInstance]:
    settings = Settings(state_dir=tmp_path_factory.mktemp("state"))
    with psycopg.connect(server.owner_url) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('ours')")
    ensure_dagster_database(server.owner_url, settings)
    home = prepare_dagster_home(settings)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(settings, server.owner_url).items():
            patch.setenv(name, value)
        with DagsterInstance.from_config(str(home)) as loaded:
            yield loaded


def _names(url: str, statement: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [str(row[0]) for row in connection.execute(statement)]


def test_trap_1_a_materialisation_is_stored_through_psycopg2(instance: DagsterInstance) -> None:
    storage = instance.event_log_storage
    assert isinstance(storage, PostgresEventLogStorage)
    assert storage._engine.driver == "psycopg2"
    event = AssetMaterialization("a_day", partition="2026-03-08")
    instance.report_runless_asset_event(event)
    records = instance.fetch_materializations(AssetKey("a_day"), limit=5).records
    assert [record.partition_key for record in records] == ["2026-03-08"]


def test_trap_2_dagster_keeps_to_its_own_database(
    instance: DagsterInstance, server: EmbeddedPostgres
) -> None:
    assert instance.get_runs(RunsFilter(), limit=1) == []
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert _names(server.owner_url, tables) == ["alembic_version"]
    assert _names(server.owner_url, "SELECT version_num FROM alembic_version") == ["ours"]
    own = _names(server.url("postgres_dagster"), tables)
    assert {"event_logs", "runs", "job_ticks", "daemon_heartbeats", "alembic_version"} <= set(own)


def test_only_the_owner_may_connect_to_dagsters_database(
    instance: DagsterInstance, server: EmbeddedPostgres
) -> None:
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE somebody LOGIN")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(server.url("postgres_dagster", user="somebody"))


def test_dagsters_database_is_created_once(server: EmbeddedPostgres, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    first = ensure_dagster_database(server.owner_url, settings)
    assert ensure_dagster_database(server.owner_url, settings) == first
    assert first.startswith("postgresql+psycopg2://postgres@/postgres_dagster?host=")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_trap_1_a_configured_url_becomes_psycopg2_whatever_its_scheme(
    scheme: str, tmp_path: Path
) -> None:
    given = f"{scheme}://dagster:p%40ss@db.example/events?sslmode=require"
    settings = Settings(state_dir=tmp_path, dagster_database_url=given)
    url = dagster_url(settings, "postgresql://owner@db.example/fleet")
    assert url == "postgresql+psycopg2://dagster:p%40ss@db.example/events?sslmode=require"
    assert libpq_url(url) == "postgresql://dagster:p%40ss@db.example/events?sslmode=require"


def test_blanks_and_plus_signs_reach_libpq_as_they_are() -> None:
    url = "postgresql+psycopg2://poor one:a+b c@/fleet?host=/srv/my stuff+1"
    plain = conninfo_to_dict(libpq_url(url))
    assert plain["user"] == "poor one"
    assert plain["password"] == "a+b c"
    assert plain["host"] == "/srv/my stuff 1"
    assert (
        conninfo_to_dict(libpq_url("postgresql://o@/f?host=%2Fsrv%2Fa%2Bb"))["host"] == "/srv/a+b"
    )


def test_telemetry_is_off(instance: DagsterInstance) -> None:
    assert instance.telemetry_enabled is False


def test_the_run_queue_monitoring_retries_and_retention_are_as_designed(
    instance: DagsterInstance,
) -> None:
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 5
    assert [limit["key"] for limit in queue.tag_concurrency_limits] == ["dagster/backfill"]
    coordinator = instance.run_coordinator
    assert coordinator.dequeue_interval_seconds == 1  # type: ignore[attr-defined]
    assert coordinator.dequeue_use_threads is True  # type: ignore[attr-defined]
    assert instance.run_monitoring_enabled
    assert instance.run_monitoring_max_runtime_seconds == 1800
    shipped = yaml.safe_load(shipped_dagster_yaml().read_text())
    # Trap 15: without it a cancelled run keeps its pool slot for ever.
    assert shipped["run_monitoring"]["free_slots_after_run_end_seconds"] == 300
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == 1
    assert instance.run_retries_retry_on_asset_or_op_failure is False
    for kind in ("schedule", "sensor"):
        days = shipped["retention"][kind]["purge_after_days"]
        assert (days["success"], days["failure"], days["skipped"]) == (30, 30, 2)
        assert shipped[f"{kind}s"]["use_threads"] is True


def test_compute_logs_and_artifacts_stay_in_the_state_folder(instance: DagsterInstance) -> None:
    home = os.environ["DAGSTER_HOME"]
    assert instance.storage_directory().startswith(home)
    manager = instance.compute_log_manager
    assert str(manager._base_dir).startswith(home)  # type: ignore[attr-defined]


def test_the_workspace_of_up_points_at_one_code_server(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, code_server_port=4321)
    prepare_dagster_home(settings)
    assert load_yaml_from_path(str(workspace_file(settings)))
    (origin,) = location_origins_from_yaml_paths([str(workspace_file(settings))])
    assert origin.location_name == "fleetprompt"
    assert (origin.host, origin.port) == ("127.0.0.1", 4321)  # type: ignore[attr-defined]


def test_the_shipped_workspace_names_the_code_location_and_needs_no_server() -> None:
    (origin,) = location_origins_from_yaml_paths([str(ROOT / "workspace.yaml")])
    assert origin.location_name == "fleetprompt"
    target = origin.loadable_target_origin
    assert target.module_name == "fleetprompt_dagster.definitions"


def test_the_children_see_the_settings_that_were_given(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        allowed_private_networks=("127.0.0.0/8", "fd00::/8"),
        allow_plain_http=True,
        digest_grace_hours=1.5,
        master_key="c2VjcmV0" * 4,
        api_port=8123,
    )
    given = environment(settings, "postgresql://owner:pw@db.example/fleet")
    program = (
        "from fleetprompt.settings import Settings; s = Settings();"
        "print(s.model_dump_json(exclude={'database_url', 'dagster_database_url', 'log_format'}))"
        ";print(s.master_key.get_secret_value(), s.database_url.get_secret_value())"
    )
    seen = subprocess.run(
        [sys.executable, "-c", program], env=given, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert seen[0] == settings.model_dump_json(
        exclude={"database_url", "dagster_database_url", "log_format"}
    )
    assert seen[1] == f"{'c2VjcmV0' * 4} postgresql://owner:pw@db.example/fleet"
    assert given["DAGSTER_EVENT_BATCH_SIZE"] == "200"
