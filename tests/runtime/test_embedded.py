"""The embedded PostgreSQL, run for real: start, stop, crash, second user, hostile leftovers."""

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy.engine import make_url

from fleetprompt.runtime import embedded_files
from fleetprompt.runtime.embedded import EmbeddedPostgres, EmbeddedPostgresError


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder outside pytest's own, which any other pytest that starts closes to other users."""
    with tempfile.TemporaryDirectory(prefix="fleetprompt-test-") as path:
        yield Path(path)


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder / "postgres") as running:
        yield running


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement).fetchone()
        assert row is not None
        return row[0]


def write_a_row(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.owner_url) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        connection.execute("INSERT INTO kept VALUES (7)")


def gone(pid: int, within: float = 15.0) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("server_version_num", "18"),
        ("listen_addresses", ""),
        ("max_connections", "300"),
        ("shared_buffers", "256MB"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("max_locks_per_transaction", "256"),
        ("jit", "off"),
        ("TimeZone", "UTC"),
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
    ],
)
def test_runs_with_the_settings_that_durability_and_dagster_need(
    shared_server: EmbeddedPostgres, setting: str, value: str
) -> None:
    shown = str(ask(shared_server.owner_url, f"SHOW {setting}"))
    assert shown.startswith(value) if setting == "server_version_num" else shown == value


@pytest.fixture(scope="module")
def shared_server() -> Iterator[EmbeddedPostgres]:
    with (
        tempfile.TemporaryDirectory(prefix="fleetprompt-test-") as path,
        EmbeddedPostgres(Path(path) / "postgres") as running,
    ):
        yield running


def test_orders_by_code_point_and_knows_case_beyond_ascii(shared_server: EmbeddedPostgres) -> None:
    assert ask(shared_server.owner_url, "SELECT lower('ÄÉ')") == "äé"
    assert ask(shared_server.owner_url, "SELECT 'Z' < 'a'") is True


def test_only_the_owner_can_reach_the_socket(shared_server: EmbeddedPostgres) -> None:
    data_dir = shared_server.data_dir
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((data_dir / ".s.PGSQL.5432").stat().st_mode) == 0o700


def test_failing_rows_and_statements_stay_out_of_the_log(shared_server: EmbeddedPostgres) -> None:
    with psycopg.connect(shared_server.owner_url, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE t (body text, x int NOT NULL)")
        with pytest.raises(psycopg.errors.NotNullViolation):
            connection.execute("INSERT INTO t VALUES ('canary-in-a-row', NULL)")
    time.sleep(0.2)
    text = "\n".join(shared_server.last_lines)
    assert "violates not-null constraint" in text
    assert "canary-in-a-row" not in text


def test_options_replace_the_defaults_and_log_lines_are_streamed(folder: Path) -> None:
    lines: list[str] = []
    options = {"max_connections": "42"}
    with EmbeddedPostgres(folder / "pg", options=options, on_log=lines.append) as server:
        assert ask(server.owner_url, "SHOW max_connections") == "42"
    assert any("ready to accept connections" in line for line in lines)
    assert any("database system is shut down" in line for line in lines)


def test_stops_cleanly_and_keeps_the_data(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres")
    server.start()
    pid = server.pid
    write_a_row(server)
    server.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not server.alive
    assert server.pid is None
    with server:
        assert ask(server.owner_url, "SELECT id FROM kept") == 7
        assert not any("recovery" in line for line in server.last_lines)


def test_recovers_after_the_postmaster_was_killed(server: EmbeddedPostgres) -> None:
    write_a_row(server)
    held = psycopg.connect(server.owner_url)
    server.kill()
    assert not server.alive
    assert (server.data_dir / "postmaster.pid").exists()
    server.start()
    held.close()
    assert any("recovery" in line for line in server.last_lines)
    assert ask(server.owner_url, "SELECT id FROM kept") == 7


def test_a_lock_file_whose_number_is_another_process_is_cleared(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres")
    server.start()
    server.kill()
    bystander = subprocess.Popen(
        ["sleep", "60"], **embedded_files.as_account(_account_of(server.data_dir))
    )
    try:
        lock_file = server.data_dir / "postmaster.pid"
        _first, rest = lock_file.read_text().split("\n", 1)
        lock_file.write_text(f"{bystander.pid}\n{rest}")
        server.start()
        assert server.owned
        assert ask(server.owner_url, "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        server.stop()
        bystander.kill()
        bystander.wait()


def _account_of(data_dir: Path) -> embedded_files.ServerAccount | None:
    found = data_dir.stat()
    root = os.geteuid() == 0
    return embedded_files.ServerAccount(found.st_uid, found.st_gid) if root else None


def test_a_running_server_is_shared_and_left_to_its_owner(server: EmbeddedPostgres) -> None:
    with EmbeddedPostgres(server.data_dir) as second:
        assert second.pid == server.pid
        assert not second.owned
        assert second.owner_url == server.owner_url
        assert ask(second.owner_url, "SELECT 1") == 1
    assert server.alive
    assert ask(server.owner_url, "SELECT 1") == 1


def test_two_starts_at_once_make_one_server(folder: Path) -> None:
    servers = [EmbeddedPostgres(folder / "postgres") for _ in range(4)]
    threads = [threading.Thread(target=server.start) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len({server.pid for server in servers}) == 1
        assert sum(server.owned for server in servers) == 1
    finally:
        for server in servers:
            server.stop()


def test_the_server_outlives_the_thread_that_started_it(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres")
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join()
    try:
        time.sleep(0.3)
        assert ask(server.owner_url, "SELECT 1") == 1
    finally:
        server.stop()


def test_a_deep_state_folder_gets_a_short_private_socket_folder(folder: Path) -> None:
    deep = folder.joinpath(*["a-rather-long-folder-name"] * 6) / "postgres"
    with EmbeddedPostgres(deep) as server:
        assert ask(server.owner_url, "SELECT 1") == 1
        socket_dir = Path(server.owner_url.partition("?host=")[2])
        assert socket_dir != deep
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
        server.kill()
        server.start()
        assert ask(server.owner_url, "SELECT 1") == 1
    socket_dir.rmdir()


@pytest.mark.parametrize("name", ["my stuff", "a+b", "one, two", "R&D Ä", "50%"])
def test_a_folder_with_any_name_works_for_libpq_and_for_sqlalchemy(folder: Path, name: str) -> None:
    with EmbeddedPostgres(folder / name / "postgres") as server:
        assert ask(server.owner_url, "SELECT 1") == 1
        rendered = make_url(server.owner_url).render_as_string(hide_password=False)
        assert ask(rendered, "SELECT 1") == 1
        socket_dir = Path(server.owner_url.partition("?host=")[2])
    socket_dir.rmdir()


def test_a_kill_during_initdb_leaves_nothing_that_looks_like_a_database(folder: Path) -> None:
    half = folder / "postgres.unfinished"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(folder / "postgres") as server:
        assert ask(server.owner_url, "SELECT 1") == 1
    assert not half.exists()


def test_refuses_a_folder_with_foreign_files_or_of_another_version(folder: Path) -> None:
    data_dir = folder / "postgres"
    data_dir.mkdir()
    (data_dir / "letter.txt").write_text("dear reader")
    with pytest.raises(EmbeddedPostgresError, match="holds files but no database"):
        EmbeddedPostgres(data_dir).start()
    (data_dir / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 16.*dump it"):
        EmbeddedPostgres(data_dir).start()


def test_a_server_that_cannot_start_tells_its_last_lines(folder: Path) -> None:
    server = EmbeddedPostgres(folder / "postgres", options={"shared_buffers": "nonsense"})
    with pytest.raises(EmbeddedPostgresError, match="shared_buffers"):
        server.start()
    assert not server.alive


def test_without_the_wheel_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedPostgresError, match=r"fleetprompt\[embedded\].*DATABASE_URL"):
        EmbeddedPostgres(folder / "postgres").start()


def test_the_url_is_refused_before_the_start(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="not been started"):
        _ = EmbeddedPostgres(folder / "postgres").owner_url


_OWNER = """
import sys, time
from pathlib import Path
from fleetprompt.runtime.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""


def test_no_server_is_orphaned_when_its_owner_is_killed(folder: Path) -> None:
    data_dir = folder / "postgres"
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(data_dir)], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.send_signal(signal.SIGKILL)
    assert gone(pid)
    # The reaper asked it to stop; nothing needs recovery.
    with EmbeddedPostgres(data_dir) as server:
        assert not any("recovery" in line for line in server.last_lines)
