"""Migrations: one Alembic chain for the platform, one for every tenant's schema.

The tenants' chain runs over N schemas, several at once. Each schema's steps and the revision noted in
``organizations`` commit together, so that a killed run is resumed by running it again. A step that
waits for a lock longer than ``LOCK_TIMEOUT`` halts the whole run rather than queueing every
reader behind it.
"""

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from fleetprompt.db.base import PLATFORM_SCHEMA
from fleetprompt.db.engine import quote_identifier
from fleetprompt.db.migrations import op
from fleetprompt.db.roles import create_tenant_schema, ensure_roles
from fleetprompt.db.urls import application_password, owner_url, sqlalchemy_url
from fleetprompt.errors import ConflictError, DatabaseUnavailableError
from fleetprompt.settings import Settings

LOCK_TIMEOUT = "5s"
OLDEST_SERVER = 15
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MigrationState:
    """Where the database stands: ``None`` for a chain that has not begun."""

    platform: str | None
    platform_head: str
    tenants: int
    tenants_behind: int
    tenant_head: str

    @property
    def current(self) -> bool:
        """Whether everything is at its head."""
        return self.platform == self.platform_head and self.tenants_behind == 0


@lru_cache
def _scripts(chain: str) -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent / "migrations" / chain))


def head(chain: str) -> str:
    """The newest revision of ``platform`` or ``tenant``."""
    found = _scripts(chain).get_current_head()
    if found is None:
        raise RuntimeError(f"the chain {chain!r} has no migration")
    return found


def known_revision(chain: str, revision: str) -> bool:
    """Whether this version has the revision."""
    return any(script.revision == revision for script in _scripts(chain).walk_revisions())


def _upgrade(connection: Connection, chain: str, schema: str, target: str = "head") -> None:
    def steps(revision: Any, _context: MigrationContext) -> Any:
        return _scripts(chain)._upgrade_revs(target, revision)

    context = MigrationContext.configure(
        connection, opts={"fn": steps, "version_table_schema": schema}
    )
    with op.on(connection):
        context.run_migrations()


def _platform(engine_url: Any) -> None:
    engine = create_engine(engine_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        _upgrade(connection, "platform", PLATFORM_SCHEMA)


def migrate_tenant(url: str, schema: str, target: str | None = None) -> None:
    """Bring one tenant's schema to the newest revision, or up to ``target``; all of it or nothing."""
    revision = target or head("tenant")
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        # Two runs at once do one schema after the other; the later one finds nothing left to do.
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:schema, 1))"), {"schema": schema}
        )
        connection.execute(text(f"SET LOCAL search_path = {quote_identifier(schema)}"))
        _upgrade(connection, "tenant", schema, revision)
        connection.execute(
            text("UPDATE fleetprompt.organizations SET revision = :r WHERE schema_name = :s"),
            {"r": revision, "s": schema},
        )


def check_server(connection: psycopg.Connection) -> None:
    """Refuse a server that is too old."""
    version = connection.info.server_version // 10_000
    if version < OLDEST_SERVER:
        raise ConflictError(
            f"PostgreSQL {version} is too old: FleetPrompt needs {OLDEST_SERVER} or newer. Upgrade the "
            "server, or unset FLEETPROMPT_DATABASE_URL to use the embedded one."
        )


def migrate(
    settings: Settings,
    *,
    progress: Progress = lambda what, done, total: None,
    jobs: int = 4,
    upgrade_tenant: Callable[[str, str], None] = migrate_tenant,
) -> None:
    """Bring the platform and every tenant to the newest revision.

    ``progress(schema, done, total)`` is called after each. Safe to run again at any time, and at the
    same time as another run. Raises ConflictError naming the tenant when a lock is not had in time.
    """
    url = owner_url(settings)
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            check_server(connection)
            ensure_roles(connection, application_password(settings))
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            f"PostgreSQL cannot be reached or refuses the owner's login: {type(error).__name__}. "
            "Check FLEETPROMPT_DATABASE_URL and that the server runs."
        ) from None
    try:
        _platform(sqlalchemy_url(url))
    except OperationalError as error:
        raise _halted(PLATFORM_SCHEMA, error, 0, 0) from error
    progress(PLATFORM_SCHEMA, 0, 0)

    with psycopg.connect(url) as connection:
        behind = [
            row[0]
            for row in connection.execute(
                "SELECT schema_name FROM fleetprompt.organizations WHERE state = 'active'"
                " AND revision IS DISTINCT FROM %s ORDER BY created_at, slug",
                (head("tenant"),),
            )
        ]
    done = 0
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="migrate") as pool:
        waiting = {pool.submit(upgrade_tenant, url, schema): schema for schema in behind}
        while waiting:
            finished, _ = wait(waiting, return_when=FIRST_EXCEPTION, timeout=0.2)
            for future in finished:
                schema = waiting.pop(future)
                failure = future.exception()
                if failure is not None:
                    pool.shutdown(cancel_futures=True)
                    raise _halted(schema, failure, done, len(behind)) from failure
                done += 1
                progress(schema, done, len(behind))


def _halted(schema: str, error: BaseException, done: int, total: int) -> ConflictError:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    reason = (
        f"its tables are locked for longer than {LOCK_TIMEOUT} by another session"
        if state == "55P03"
        else f"{type(error).__name__} (SQLSTATE {state or 'none'})"
    )
    return ConflictError(
        f"Halted at {schema} after {done} of {total} tenants: {reason}. What is done is kept; run "
        "`fleetprompt migrate` again to go on."
    )


def provision(url: str, schema: str) -> None:
    """Create a tenant's role, schema and tables."""
    with psycopg.connect(url) as connection:
        create_tenant_schema(connection, schema)
    migrate_tenant(url, schema)


def state(settings: Settings) -> MigrationState:
    """Where the database stands; raises DatabaseUnavailableError when it cannot be reached."""
    try:
        with psycopg.connect(owner_url(settings), connect_timeout=5) as connection:
            begun = connection.execute(
                "SELECT to_regclass('fleetprompt.alembic_version') IS NOT NULL"
            ).fetchone()
            if not (begun and begun[0]):
                return MigrationState(None, head("platform"), 0, 0, head("tenant"))
            at = connection.execute(
                "SELECT version_num FROM fleetprompt.alembic_version"
            ).fetchone()
            counts = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE revision IS DISTINCT FROM %s)"
                " FROM fleetprompt.organizations WHERE state = 'active'",
                (head("tenant"),),
            ).fetchone()
    except psycopg.OperationalError as error:
        raise DatabaseUnavailableError(
            f"PostgreSQL cannot be reached: {type(error).__name__}."
        ) from None
    total, behind = counts or (0, 0)
    return MigrationState(at[0] if at else None, head("platform"), total, behind, head("tenant"))
