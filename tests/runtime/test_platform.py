"""The platform as a whole: what it refuses, what it survives, and how it comes up and goes."""

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from pydantic import SecretStr

from fleetprompt.db.urls import libpq_url
from fleetprompt.errors import ConflictError, DatabaseUnavailableError
from fleetprompt.runtime.checks import examine
from fleetprompt.runtime.platform import platform_programs, running_platform
from fleetprompt.runtime.ports import PortTakenError
from fleetprompt.runtime.processes import Program
from fleetprompt.runtime.state_lock import AlreadyRunningError, running
from fleetprompt.runtime.supervisor import RestartPolicy
from fleetprompt.settings import Settings
from tests.ports import free_port

FOREVER = "import time\nwhile True: time.sleep(60)"
_ANSWERING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
Log = list[tuple[str, str]]


@pytest.fixture
def settings() -> Iterator[Settings]:
    api, dagster, code = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="fleetprompt-test-") as folder:
        yield Settings(
            state_dir=Path(folder) / "state",
            api_port=api,
            dagster_port=dagster,
            code_server_port=code,
            log_format="json",
        )


def until(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def small(_settings: Settings, given: Mapping[str, str]) -> list[Program]:
    """A migration in small and one process, both with the environment of the real ones."""
    migrate = (
        "import os, psycopg\n"
        "with psycopg.connect(os.environ['FLEETPROMPT_DATABASE_URL']) as c:"
        " c.execute('CREATE TABLE IF NOT EXISTS migrated ()')"
    )
    return [
        Program("migrate", [sys.executable, "-c", migrate], given, once=True),
        Program("api", [sys.executable, "-c", FOREVER], given, after=("migrate",)),
    ]


def test_comes_up_from_nothing_and_leaves_nothing_running(settings: Settings) -> None:
    log: Log = []
    with running_platform(settings, programs=small, log=lambda *line: log.append(line)) as platform:
        assert set(platform.pids) == {"postgres", "api"}
        assert platform.urls["api"] == f"http://127.0.0.1:{settings.api_port}"
        with psycopg.connect(platform.owner_url) as connection:
            connection.execute("SELECT * FROM migrated")
        with psycopg.connect(
            libpq_url(platform.environment["FLEETPROMPT_DAGSTER_DATABASE_URL"])
        ) as connection:
            assert connection.info.dbname == "postgres_dagster"
        assert (settings.state_dir / "dagster" / "dagster.yaml").is_file()
        key = settings.state_dir / "master.key"
        assert key.stat().st_mode & 0o777 == 0o600
        noted = running(settings.state_dir)
        assert noted is not None
        assert (noted["pid"], noted["pids"]) == (os.getpid(), platform.pids)
        ours = [finding.message for finding in examine(settings) if finding.check == "port"]
        assert ours[0] == f"{settings.api_port} is held by our api (process {platform.pids['api']})"
        pids = list(platform.pids.values())
    assert not any(alive(pid) for pid in pids)
    assert running(settings.state_dir) is None
    assert ("supervisor", "all is ready") in log
    assert any(name == "postgres" and "ready to accept" in line for name, line in log)


def test_a_second_platform_on_the_same_folder_is_refused(settings: Settings) -> None:
    with running_platform(settings, programs=small, log=lambda *_: None) as platform:
        with (
            pytest.raises(AlreadyRunningError, match=rf"process {os.getpid()}.*STATE_DIR"),
            running_platform(settings, programs=small, log=lambda *_: None),
        ):
            pass
        assert platform.pids.keys() == {"postgres", "api"}


def test_a_crashed_database_is_started_anew_with_its_data(settings: Settings) -> None:
    quick = RestartPolicy(first_pause=0.05)
    with running_platform(settings, programs=small, log=lambda *_: None, restart=quick) as platform:
        first = platform.pids["postgres"]
        os.kill(first, signal.SIGKILL)
        assert until(lambda: platform.pids.get("postgres", first) != first)
        with psycopg.connect(platform.owner_url) as connection:
            connection.execute("SELECT * FROM migrated")


def test_a_taken_port_is_refused_before_anything_is_started(settings: Settings) -> None:
    log: Log = []
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", settings.dagster_port))
        holder.listen()
        with (
            pytest.raises(PortTakenError, match="FLEETPROMPT_DAGSTER_PORT"),
            running_platform(settings, programs=small, log=lambda *line: log.append(line)),
        ):
            pass
    assert log == []
    assert not (settings.state_dir / "postgres").exists()


class _OldServer(socketserver.BaseRequestHandler):
    """Speaks just enough of PostgreSQL's protocol (version 3) to say that it is version 14."""

    def handle(self) -> None:
        while True:
            length = int.from_bytes(self.request.recv(4), "big")
            code = int.from_bytes(self.request.recv(length - 4)[:4], "big")
            if code != 196608:  # A request for TLS or GSS encryption comes first.
                self.request.sendall(b"N")
                continue
            break
        parameters = (b"server_version\x0014.12\x00", b"client_encoding\x00UTF8\x00")
        self.request.sendall(
            b"R\x00\x00\x00\x08\x00\x00\x00\x00"
            + b"".join(b"S" + (len(p) + 4).to_bytes(4, "big") + p for p in parameters)
            + b"Z\x00\x00\x00\x05I"
        )
        self.request.recv(1024)


def test_a_database_older_than_15_is_refused_before_anything_is_started(settings: Settings) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), _OldServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"postgresql://owner:hunter2@127.0.0.1:{server.server_address[1]}/fleet"
        old = settings.model_copy(update={"database_url": SecretStr(url)})
        log: Log = []
        with (
            pytest.raises(ConflictError, match=r"PostgreSQL 14 is too old.*15 or newer"),
            running_platform(old, programs=small, log=lambda *line: log.append(line)),
        ):
            pass
        server.shutdown()
        thread.join()
    assert log == []


def test_an_unreachable_database_is_named_without_its_password(settings: Settings) -> None:
    port = free_port()
    url = SecretStr(f"postgresql://owner:hunter2@127.0.0.1:{port}/fleet")
    away = settings.model_copy(update={"database_url": url})
    with (
        pytest.raises(DatabaseUnavailableError, match="cannot be reached") as refused,
        running_platform(away, programs=small, log=lambda *_: None),
    ):
        pass
    assert "hunter2" not in str(refused.value)


def test_trap_25_dagster_listens_on_loopback_only_whatever_the_api_does(settings: Settings) -> None:
    given = {
        "FLEETPROMPT_LOG_FORMAT": "json",
        "FLEETPROMPT_DAGSTER_DATABASE_URL": "postgresql+psycopg2://o@db.example/d",
    }
    public = settings.model_copy(update={"api_host": "0.0.0.0"})  # noqa: S104
    programs = {program.name: program for program in platform_programs(public, given)}
    for name in ("code-server", "webserver"):
        command = list(programs[name].command)
        assert command[command.index("--host") + 1] == "127.0.0.1"
    assert "0.0.0.0" in programs["api"].command  # noqa: S104


def test_no_program_shows_its_environment(settings: Settings) -> None:
    given = {
        "FLEETPROMPT_LOG_FORMAT": "json",
        "FLEETPROMPT_DAGSTER_DATABASE_URL": "postgresql+psycopg2://o:canary-pw@db.example/d",
    }
    for program in platform_programs(settings, given):
        assert "canary-pw" not in repr(program)
        assert "canary-pw" not in " ".join(program.command)


_DEFINITIONS = """
import dagster as dg

@dg.asset
def a_day() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"dagster/row_count": 3})

daily = dg.define_asset_job("daily", selection="*", executor_def=dg.in_process_executor)
defs = dg.Definitions(assets=[a_day], jobs=[daily])
"""
_LAUNCH = """
mutation Launch {
  launchRun(executionParams: {selector: {repositoryLocationName: "fleetprompt",
    repositoryName: "__repository__", jobName: "daily"}, mode: "default"}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
_STATUS = 'query { runOrError(runId: "%s") { ... on Run { status } } }'


@pytest.mark.slow
def test_dagster_comes_up_within_thirty_seconds_and_runs_a_job(settings: Settings) -> None:
    """Real webserver, daemon and code server on the embedded PostgreSQL; a code location in small."""
    settings.state_dir.mkdir()
    (settings.state_dir / "small_definitions.py").write_text(_DEFINITIONS)

    def programs(given_settings: Settings, given: Mapping[str, str]) -> list[Program]:
        given = {**given, "PYTHONPATH": str(settings.state_dir)}
        port = str(settings.api_port)
        made = []
        for program in platform_programs(given_settings, given):
            command = [
                "small_definitions" if part == "fleetprompt_dagster.definitions" else part
                for part in program.command
            ]
            if program.name == "api":
                command = [sys.executable, "-c", _ANSWERING, port]
            fields = {**vars(program), "command": command, "environment": given}
            made.append(Program(**fields))
        return made

    begun = time.monotonic()
    log: Log = []
    with running_platform(
        settings, programs=programs, log=lambda *line: log.append(line)
    ) as platform:
        took = time.monotonic() - begun
        assert set(platform.pids) == {"postgres", "api", "code-server", "webserver", "daemon"}
        with httpx.Client(base_url=platform.urls["dagster"], timeout=30) as dagster:
            launched = dagster.post("/graphql", json={"query": _LAUNCH}).json()["data"]["launchRun"]
            assert launched["__typename"] == "LaunchRunSuccess", launched
            run = launched["run"]["runId"]

            def status() -> str:
                answer = dagster.post("/graphql", json={"query": _STATUS % run}).json()
                return str(answer["data"]["runOrError"]["status"])

            assert until(lambda: status() in ("SUCCESS", "FAILURE"), 60)
            assert status() == "SUCCESS"
        pids = [
            member.pid
            for pid in platform.pids.values()
            for member in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        ]
    assert not any(alive(pid) for pid in pids)
    # Twice the budget of an idle machine: tests share theirs.
    assert took < 60, f"ready only after {took:.0f} s"


@pytest.mark.slow
def test_up_refuses_a_taken_port_in_one_line(settings: Settings) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", settings.api_port))
        holder.listen()
        ended = subprocess.run(
            [sys.executable, "-m", "fleetprompt.cli.main", "up"],
            env={**os.environ, **_variables(settings)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"port {settings.api_port} is taken by" in ended.stderr
    assert "FLEETPROMPT_API_PORT" in ended.stderr


def _variables(settings: Settings) -> dict[str, str]:
    return {
        "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
        "FLEETPROMPT_API_PORT": str(settings.api_port),
        "FLEETPROMPT_DAGSTER_PORT": str(settings.dagster_port),
        "FLEETPROMPT_CODE_SERVER_PORT": str(settings.code_server_port),
        "FLEETPROMPT_LOG_FORMAT": "json",
    }


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_up_tells_urls_and_stops_cleanly_on_a_signal(settings: Settings, stop: int) -> None:
    program = (
        "import sys\n"
        "from tests.runtime.test_platform import small\n"
        "from fleetprompt.runtime import platform\n"
        "from fleetprompt.cli import up\n"
        "real = platform.running_platform\n"
        "up.running_platform = lambda settings: real(settings, programs=small)\n"
        "from fleetprompt.cli.main import app\n"
        "app(['up', '--json'])\n"
    )
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, **_variables(settings), "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        assert up.stderr is not None
        line = up.stdout.readline()
        assert line, up.stderr.read()
        told = json.loads(line)
        assert set(told["pids"]) == {"postgres", "api"}
        assert told["urls"]["api"] == f"http://127.0.0.1:{settings.api_port}"
        up.send_signal(stop)
        logged = [json.loads(line) for line in up.stderr]
        assert up.wait(30) == 0
    assert not any(alive(pid) for pid in told["pids"].values())
    stops = [line["message"] for line in logged if line["message"].startswith("stopping")]
    assert stops == ["stopping api", "stopping postgres"]
