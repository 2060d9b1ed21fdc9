"""The whole platform on one machine, from nothing to all doors open.

Order: embedded PostgreSQL (unless a database is configured) → migrations and Dagster's own →
API, code server → Dagster's webserver and daemon. What does not need each other starts at once.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

import psycopg
from pydantic import SecretStr

from fleetprompt.db.migrate import check_server
from fleetprompt.db.urls import libpq_url
from fleetprompt.errors import DatabaseUnavailableError
from fleetprompt.runtime import probes
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.runtime.environment import (
    CODE_LOCATION,
    CODE_MODULE,
    ensure_dagster_database,
    environment,
    prepare_dagster_home,
    workspace_file,
)
from fleetprompt.runtime.output import MergedLog
from fleetprompt.runtime.ports import doors, refuse_taken
from fleetprompt.runtime.processes import ChildProcess, LogSink, Program, Supervised
from fleetprompt.runtime.state_lock import StateLock
from fleetprompt.runtime.supervisor import SUPERVISOR, RestartPolicy, Supervisor
from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import load_master_key

API_READY_PATH = "/health/ready"
ProgramList = Callable[[Settings, Mapping[str, str]], Sequence[Program]]


class EmbeddedDatabase:
    """The embedded PostgreSQL as the supervisor sees it. ``start`` has been called once before."""

    name = "postgres"
    after: Sequence[str] = ()
    once = False
    ready_within = 120.0

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server

    @property
    def pid(self) -> int | None:
        """The postmaster's process id."""
        return self._server.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -1 if it was another process's and is gone."""
        if self._server.alive:
            return None
        code = self._server.exit_code
        return -1 if code is None else code

    @property
    def last_lines(self) -> Sequence[str]:
        """What the server logged last."""
        return list(self._server.last_lines)

    def start(self) -> None:
        """Start it anew after a crash; nothing to do if it runs."""
        self._server.start()

    def is_ready(self) -> bool:
        """``start`` returns when connections are taken."""
        return self._server.alive

    def stop(self) -> None:
        """Stop it, unless it is another process's."""
        self._server.stop()


@dataclass(frozen=True)
class Platform:
    """A running platform. ``settings`` are those of its processes, with the database's URL."""

    settings: Settings
    owner_url: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    urls: Mapping[str, str]
    supervisor: Supervisor = field(repr=False)

    @property
    def processes(self) -> dict[str, Supervised]:
        """Every process by name, the finished steps included."""
        return self.supervisor.processes

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs, by name."""
        found = {name: process.pid for name, process in self.processes.items()}
        return {name: pid for name, pid in found.items() if pid is not None}

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it ends (True), at most ``seconds``; SupervisorError if it gave up."""
        return self.supervisor.wait(seconds)

    def describe(self) -> dict[str, Any]:
        """URLs and process ids, for ``--json`` and for other commands."""
        return {"urls": dict(self.urls), "pids": self.pids}


def platform_programs(settings: Settings, given: Mapping[str, str]) -> list[Program]:
    """Every process of the platform but the database; each can also be started alone."""
    python = sys.executable
    log_format = "json" if given["FLEETPROMPT_LOG_FORMAT"] == "json" else "colored"
    workspace = str(workspace_file(settings))
    dagster_database = libpq_url(given["FLEETPROMPT_DAGSTER_DATABASE_URL"])

    def program(name: str, *command: str, **rest: Any) -> Program:
        return Program(name, (python, "-m", *command), given, **rest)

    return [
        program("migrate", "fleetprompt.cli.main", "migrate", once=True, ready_within=3600),
        program(
            "dagster-migrate",
            *("dagster", "instance", "migrate"),
            once=True,
            quiet=True,
            ready_within=3600,
        ),
        program(
            "api",
            # Which proxies to believe is a setting of ours; uvicorn would believe any local process.
            *("uvicorn", "fleetprompt_api.app:app", "--no-access-log", "--no-proxy-headers"),
            *("--host", settings.api_host, "--port", str(settings.api_port)),
            # Event streams stay open for ever; what is being answered gets these seconds.
            *("--timeout-graceful-shutdown", "5"),
            after=("migrate",),
            ready=probes.answers_http(
                f"http://{_reachable(settings.api_host)}:{settings.api_port}{API_READY_PATH}"
            ),
        ),
        program(
            "code-server",
            *("dagster", "code-server", "start", "--module-name", CODE_MODULE),
            *("--host", "127.0.0.1", "--port", str(settings.code_server_port)),
            *("--location-name", CODE_LOCATION, "--log-format", log_format),
            # Runs are started with this very Python, not with whatever `dagster` is on the path.
            "--use-python-environment-entry-point",
            ready=probes.accepts_connections("127.0.0.1", settings.code_server_port),
        ),
        program(
            "webserver",
            *("dagster_webserver", "--host", "127.0.0.1", "--port", str(settings.dagster_port)),
            *("--workspace", workspace, "--log-format", log_format),
            after=("dagster-migrate", "code-server"),
            ready=probes.answers_http(f"http://127.0.0.1:{settings.dagster_port}/server_info"),
        ),
        program(
            "daemon",
            *("dagster._daemon", "run", "--workspace", workspace, "--log-format", log_format),
            # At `info` every sensor tells every five seconds that there was nothing to do.
            *("--log-level", "info" if settings.log_level == "DEBUG" else "warning"),
            after=("migrate", "dagster-migrate", "code-server"),
            ready=probes.daemon_beats(dagster_database),
        ),
    ]


def _reachable(host: str) -> str:
    """Where this machine reaches a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104


def _urls(settings: Settings) -> dict[str, str]:
    return {
        "api": settings.api_url,
        "docs": f"{settings.api_url}/docs",
        "dagster": settings.dagster_base_url,
    }


def _refuse_old_server(owner_url: str) -> None:
    """DatabaseUnavailableError if it does not answer, ConflictError if it is older than 15."""
    try:
        with psycopg.connect(libpq_url(owner_url), connect_timeout=10) as connection:
            check_server(connection)
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            "the database at FLEETPROMPT_DATABASE_URL cannot be reached: "
            f"{str(error).strip().splitlines()[-1]}"
        ) from None


@contextmanager
def running_platform(
    settings: Settings,
    *,
    programs: ProgramList = platform_programs,
    log: LogSink | None = None,
    log_stream: TextIO | None = None,
    restart: RestartPolicy | None = None,
) -> Iterator[Platform]:
    """Run the platform for the length of the block; all is ready when it begins, gone when it ends.

    Refuses before anything is started: PortTakenError, AlreadyRunningError, an unreachable or old
    database (FleetPromptError), no usable master key (MasterKeyError). SupervisorError if a process
    does not come up. Logs go to ``log``, else to ``log_stream`` (standard error) in the settings'
    format.
    """
    stream = log_stream or sys.stderr
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not stream.isatty()
    )
    log = log or MergedLog(stream, as_json=as_json)
    log_format: Literal["text", "json"] = "json" if as_json else "text"
    with ExitStack() as stack:
        lock = stack.enter_context(StateLock(settings.state_dir))
        refuse_taken(doors(settings))
        embedded = settings.database_url is None
        if settings.database_url is not None:
            owner_url = libpq_url(settings.database_url.get_secret_value())
            _refuse_old_server(owner_url)
        load_master_key(settings, create=embedded)
        prepare_dagster_home(settings)
        processes: list[Supervised] = []
        if embedded:
            server = EmbeddedPostgres(
                settings.state_dir / "postgres", on_log=lambda line: log("postgres", line)
            )
            stack.callback(server.stop)
            server.start()
            owner_url = server.owner_url
            processes.append(EmbeddedDatabase(server))
        ensure_dagster_database(owner_url, settings)
        settings = settings.model_copy(update={"database_url": SecretStr(owner_url)})
        given = environment(settings, owner_url, log_format=log_format)
        children = [ChildProcess(program, log) for program in programs(settings, given)]
        supervisor = Supervisor(
            # The database is first to start and therefore last to stop.
            [*processes, *children],
            log,
            restart=restart,
        )
        stack.callback(supervisor.stop)
        supervisor.start()
        platform = Platform(settings, owner_url, given, _urls(settings), supervisor)
        lock.describe({"pid": os.getpid(), **platform.describe()})
        log(SUPERVISOR, "all is ready")
        yield platform
