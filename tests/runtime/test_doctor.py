"""``fleetprompt doctor``: what it finds, how it says to mend it, and that it changes nothing."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from fleetprompt.cli import doctor
from fleetprompt.db.migrate import migrate
from fleetprompt.runtime.checks import Finding, Verdict, examine
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.runtime.environment import ensure_dagster_database
from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import load_master_key
from tests.ports import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with (
        tempfile.TemporaryDirectory(prefix="fleetprompt-test-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres") as running,
    ):
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state_dir=tmp_path / "state",
        api_port=free_port(),
        dagster_port=free_port(),
        code_server_port=free_port(),
    )


def on(server: EmbeddedPostgres, settings: Settings, user: str = "postgres") -> Settings:
    url = SecretStr(server.url("postgres", user=user))
    return settings.model_copy(update={"database_url": url})


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [finding for finding in findings if finding.check == check]


def test_a_fresh_machine_is_well_and_is_left_as_it_was(settings: Settings) -> None:
    findings = examine(settings)
    assert [f for f in findings if f.verdict is Verdict.BAD] == []
    assert of(findings, "database")[0].verdict is Verdict.NOTE
    assert of(findings, "master key")[0].verdict is Verdict.NOTE
    assert not settings.state_dir.exists()


def test_a_migrated_platform_is_well(server: EmbeddedPostgres, settings: Settings) -> None:
    given = on(server, settings)
    settings.state_dir.mkdir()
    load_master_key(settings, create=True)
    migrate(given)
    ensure_dagster_database(server.owner_url, given)
    findings = examine(given)
    assert [f for f in findings if f.verdict is Verdict.BAD] == []
    assert "PostgreSQL 18" in of(findings, "database")[0].message
    assert of(findings, "migrations")[0].verdict is Verdict.OK
    assert len(of(findings, "time zones")) == 2


def test_an_empty_database_needs_migrating(server: EmbeddedPostgres, settings: Settings) -> None:
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty")
    url = make_url(server.owner_url).set(database="empty").render_as_string(hide_password=False)
    (found,) = of(
        examine(settings.model_copy(update={"database_url": SecretStr(url)})), "migrations"
    )
    assert (found.verdict, found.remedy) == (Verdict.BAD, "fleetprompt migrate")


def test_a_role_without_rights_is_told_which(server: EmbeddedPostgres, settings: Settings) -> None:
    with psycopg.connect(server.owner_url) as connection:
        connection.execute('CREATE ROLE "poor one" LOGIN')
    (found,) = of(examine(on(server, settings, user="poor one")), "rights")
    assert found.verdict is Verdict.BAD
    assert "CREATEROLE and CREATEDB" in found.message
    assert found.remedy is not None
    with psycopg.connect(server.owner_url) as connection:
        connection.execute(found.remedy.partition(": ")[2].encode())
        connection.execute('GRANT CREATE ON DATABASE postgres TO "poor one"')
    (mended,) = of(examine(on(server, settings, user="poor one")), "rights")
    assert mended.verdict is Verdict.OK


def test_a_role_that_may_not_make_schemas_is_told_so(
    server: EmbeddedPostgres, settings: Settings
) -> None:
    with psycopg.connect(server.owner_url) as connection:
        connection.execute("CREATE ROLE builder LOGIN CREATEROLE CREATEDB")
    (found,) = of(examine(on(server, settings, user="builder")), "rights")
    assert (found.verdict, found.remedy) == (
        Verdict.BAD,
        'as its owner: GRANT CREATE ON DATABASE "postgres" TO "builder"',
    )


def test_an_unreachable_database_is_told_without_its_password(settings: Settings) -> None:
    url = SecretStr(f"postgresql://owner:hunter2@127.0.0.1:{settings.api_port}/fleet")
    findings = examine(settings.model_copy(update={"database_url": url}))
    (found,) = of(findings, "database")
    assert found.verdict is Verdict.BAD
    assert "hunter2" not in str(findings)


def test_a_taken_port_is_told_with_its_holder(settings: Settings) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", settings.api_port))
        holder.listen()
        bad = [f for f in of(examine(settings), "port") if f.verdict is Verdict.BAD]
    assert len(bad) == 1
    assert f"(process {os.getpid()})" in bad[0].message
    assert "FLEETPROMPT_API_PORT" in str(bad[0].remedy)


def test_a_master_key_that_others_can_read_is_told(settings: Settings) -> None:
    settings.state_dir.mkdir()
    load_master_key(settings, create=True)
    path = settings.state_dir / "master.key"
    assert of(examine(settings), "master key")[0].verdict is Verdict.OK
    path.chmod(0o644)
    (found,) = of(examine(settings), "master key")
    assert found.verdict is Verdict.BAD
    assert path.read_text().strip() not in str(found)


def test_a_running_embedded_database_is_looked_into(settings: Settings) -> None:
    with tempfile.TemporaryDirectory(prefix="fleetprompt-test-") as folder:
        here = settings.model_copy(update={"state_dir": Path(folder)})
        with EmbeddedPostgres(Path(folder) / "postgres"):
            assert of(examine(here), "database")[0].verdict is Verdict.OK
        assert "is stopped" in of(examine(here), "database")[0].message


def test_prints_for_people_and_for_programs_with_the_right_exit_code(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETPROMPT_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("FLEETPROMPT_API_PORT", str(settings.api_port))
    monkeypatch.setenv("FLEETPROMPT_DAGSTER_PORT", str(settings.dagster_port))
    monkeypatch.setenv("FLEETPROMPT_CODE_SERVER_PORT", str(settings.code_server_port))
    well = CliRunner().invoke(doctor.app, ["--json"])
    told = json.loads(well.stdout)
    assert (well.exit_code, told["ok"]) == (0, True)
    assert {"check", "verdict", "message", "remedy"} == set(told["checks"][0])
    monkeypatch.setenv("FLEETPROMPT_DATABASE_URL", "postgresql://x@127.0.0.1:1/x")
    ill = CliRunner().invoke(doctor.app, [])
    assert ill.exit_code == 1
    assert "✗ database" in ill.stdout
    assert "→ check FLEETPROMPT_DATABASE_URL" in ill.stdout


def test_a_wrong_setting_is_a_finding_and_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETPROMPT_API_PORT", "eight thousand")
    found = CliRunner().invoke(doctor.app, [])
    assert found.exit_code == 1
    assert "FLEETPROMPT_API_PORT" in found.stdout


def test_help_is_quick_because_no_command_is_imported() -> None:
    program = (
        "import sys; from fleetprompt.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m in ('sqlalchemy', 'psycopg', 'pydantic', 'httpx')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "doctor" in ended.stdout
    assert ended.stdout.rstrip().endswith("[]")


def test_every_listed_command_exists_and_shows_its_help() -> None:
    from fleetprompt.cli.main import COMMANDS, app

    for name in COMMANDS:
        shown = CliRunner().invoke(app, [name, "--help"])
        assert shown.exit_code == 0, name
        assert f"fleetprompt {name}" in shown.stdout.replace("root ", "fleetprompt ")
