"""What the platform's processes are given: one environment, Dagster's database and its home."""

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from fleetprompt.db.urls import libpq_url
from fleetprompt.settings import Settings

CODE_LOCATION = "fleetprompt"
CODE_MODULE = "fleetprompt_dagster.definitions"
_CONFIGURATION = "dagster.yaml"


def dagster_home(settings: Settings) -> Path:
    """``DAGSTER_HOME``: where Dagster reads its configuration and writes compute logs."""
    return settings.state_dir / "dagster"


def shipped_dagster_yaml() -> Path:
    """The ``dagster.yaml`` of this installation: inside the package, or at the top of the source.

    FileNotFoundError if neither is there.
    """
    package = Path(str(files("fleetprompt")))
    for folder in (package / "runtime", package.parent):
        if (folder / _CONFIGURATION).is_file():
            return folder / _CONFIGURATION
    raise FileNotFoundError(f"{_CONFIGURATION} is missing in this installation of fleetprompt")


def prepare_dagster_home(settings: Settings) -> Path:
    """Write Dagster's configuration and workspace file into its home; returns the home."""
    home = dagster_home(settings)
    home.mkdir(parents=True, exist_ok=True)
    _write(home / _CONFIGURATION, shipped_dagster_yaml().read_text())
    # JSON is YAML: one code server for both the webserver and the daemon.
    server = {
        "host": "127.0.0.1",
        "port": settings.code_server_port,
        "location_name": CODE_LOCATION,
    }
    _write(workspace_file(settings), json.dumps({"load_from": [{"grpc_server": server}]}) + "\n")
    return home


def workspace_file(settings: Settings) -> Path:
    """The workspace file that points the webserver and the daemon at the code server."""
    return dagster_home(settings) / "workspace.yaml"


def _write(path: Path, content: str) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    unfinished.write_text(content)
    unfinished.replace(path)


def dagster_url(settings: Settings, owner_url: str) -> str:
    """Dagster's database as it is set, else ``<database>_dagster`` on the owner's server.

    Always for psycopg2: with SQLAlchemy 2.1 a bare ``postgresql://`` means psycopg 3, which cannot
    run the ``NOTIFY`` of dagster-postgres (research/dagster.md, trap 1).
    """
    if settings.dagster_database_url is not None:
        url = make_url(settings.dagster_database_url.get_secret_value())
    else:
        owner = make_url(owner_url)
        url = owner.set(database=f"{owner.database or owner.username}_dagster")
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def ensure_dagster_database(owner_url: str, settings: Settings | None = None) -> str:
    """Create Dagster's own database unless it is there; returns its URL for Dagster.

    One that was configured (``FLEETPROMPT_DAGSTER_DATABASE_URL``) is the operator's to create. Needs
    the right to create databases. Only the owner may connect to the new one.
    """
    settings = settings or Settings()
    url = dagster_url(settings, owner_url)
    if settings.dagster_database_url is not None:
        return url
    name = make_url(url).database or ""
    with psycopg.connect(libpq_url(owner_url), autocommit=True, connect_timeout=10) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        if found.fetchone() is None:
            try:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                return url
            connection.execute(
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
            )
    return url


def environment(
    settings: Settings, owner_url: str, *, log_format: Literal["text", "json"] = "json"
) -> dict[str, str]:
    """The environment of every process of the platform.

    This process's own, plus each setting that was given (wherever it came from), so that the
    children see the same ``Settings`` as this process, plus what Dagster reads.
    """
    given = {
        f"FLEETPROMPT_{name.upper()}": _as_text(getattr(settings, name))
        for name in settings.model_fields_set
        if getattr(settings, name) is not None
    }
    return {
        **os.environ,
        **given,
        "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
        "FLEETPROMPT_DATABASE_URL": libpq_url(owner_url),
        "FLEETPROMPT_DAGSTER_DATABASE_URL": dagster_url(settings, owner_url),
        "FLEETPROMPT_LOG_FORMAT": log_format,
        "DAGSTER_HOME": str(dagster_home(settings)),
        # Partition events are stored in batches: 46 s become 14 s for 1,000 of them.
        "DAGSTER_EVENT_BATCH_SIZE": "200",
        "PYTHONUNBUFFERED": "1",
    }


def _as_text(value: Any) -> str:
    """A setting's value as its environment variable reads it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return json.dumps([str(item) for item in value])
    return str(value)
