"""Connections and the two kinds of transaction: the platform's and a tenant's.

A tenant transaction sets role and search path together, transaction-locally, in one round trip.
The tenant's role may use its own schema and nothing else, and the application's login has no
right on any of them, so a forgotten tenant context or filter is ``permission denied`` and never
somebody else's rows. Transaction-local settings are safe behind PgBouncer in every mode.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Row, TextClause, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.pool import ConnectionPoolEntry

from fleetprompt.db.pool import TenantPool, wanting
from fleetprompt.db.urls import application_url, owner_url, sqlalchemy_url
from fleetprompt.errors import DatabaseUnavailableError, NotFoundError, OverloadedError
from fleetprompt.settings import Settings

# Seconds that one statement of a transaction may take.
STATEMENT_TIMEOUT = 30

_PING_AFTER_SECONDS = 1.0
_NOT_ALLOWED = "42501"  # SQLSTATE insufficient_privilege
_IDLE_SINCE = "fleetprompt_idle_since"

ENTER_TENANT = (
    "SELECT set_config('role', %(schema)s, true), set_config('search_path', %(path)s, true)"
)
_ENTER_TENANT = text(
    "SELECT set_config('role', :schema, true), set_config('search_path', :path, true),"
    f" set_config('statement_timeout', '{STATEMENT_TIMEOUT}s', true)"
)


def quote_identifier(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def tenant_path(schema: str) -> str:
    """The search path of a tenant: its schema, and temporary tables last, not first as by default."""
    return f"{quote_identifier(schema)}, pg_temp"


class Database:
    """A pool of connections under one login.

    ``platform()`` and ``tenant(schema)`` open a transaction that commits when the block ends and
    rolls back when it raises. A lost or refused connection is a DatabaseUnavailableError and an
    exhausted pool an OverloadedError, both with ``retry_after``.
    """

    def __init__(self, url: str, settings: Settings, *, application_name: str = "fleetprompt"):
        self.url = url
        self.engine: AsyncEngine = create_async_engine(
            sqlalchemy_url(url),
            pool_size=settings.database_pool_size,
            max_overflow=0,
            poolclass=TenantPool,
            pool_timeout=settings.database_pool_timeout,
            pool_recycle=settings.database_connection_lifetime,
            # Parameters may be anything that a tenant sent; an exception shows the statement alone.
            hide_parameters=True,
            connect_args={"application_name": application_name, "connect_timeout": 5},
        )
        _ping_after_idling(self.engine)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @classmethod
    def application(cls, settings: Settings, *, name: str = "fleetprompt") -> Self:
        """Under the application's login."""
        return cls(application_url(settings), settings, application_name=name)

    @classmethod
    def owner(cls, settings: Settings) -> Self:
        """Under the owner's login: for creating and deleting tenants only."""
        return cls(owner_url(settings), settings, application_name="fleetprompt-owner")

    @asynccontextmanager
    async def platform(self) -> AsyncIterator[AsyncSession]:
        """A transaction on the platform's own tables."""
        with _told():
            async with self._sessions() as session, session.begin():
                yield session

    @asynccontextmanager
    async def tenant(self, schema: str) -> AsyncIterator[AsyncSession]:
        """A transaction that sees the tables of one tenant and nothing else."""
        with _told():
            async with self._sessions() as session:
                with wanting(schema):
                    await self._enter(session, schema)
                try:
                    yield session
                except BaseException:
                    await session.rollback()
                    raise
                await session.commit()

    async def _enter(self, session: AsyncSession, schema: str) -> None:
        """Begin a transaction as ``schema``'s role.

        A backend that was reading which roles its login may take while a tenant was made can go on without
        the new one until the next tenant is made (seen twice in a thousand on PostgreSQL 18). Such a
        connection is closed, and another asked.
        """
        parameters = {"schema": schema, "path": tenant_path(schema)}
        try:
            await session.execute(_ENTER_TENANT, parameters)
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
                raise
            await (await session.connection()).invalidate()
            await session.rollback()
            await session.execute(_ENTER_TENANT, parameters)

    async def statement(
        self, statement: TextClause, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """One statement on the platform's own tables, in one round trip: a transaction of its own."""
        with _told():
            async with self.engine.connect() as connection:
                alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
                result = await alone.execute(statement, parameters)
                return result.all() if result.returns_rows else []

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.close()


def _ping_after_idling(engine: AsyncEngine) -> None:
    """Have a connection that PostgreSQL closed while it lay in the pool replaced unseen.

    SQLAlchemy's own ping costs a round trip at every checkout; here a connection that was in use a moment
    ago is trusted. Where that is wrong the caller is told that the database is away.
    """

    @event.listens_for(engine.sync_engine, "checkin")
    def note(_: object, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        idle_since = record.info.pop(_IDLE_SINCE, None)
        if idle_since is None or time.monotonic() - idle_since < _PING_AFTER_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


class _told:  # noqa: N801 - reads as a phrase where it is used
    """Turns what drivers raise when PostgreSQL is away into problems that callers know."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if isinstance(error, PoolTimeoutError):
            raise OverloadedError(
                "All database connections of this process are in use.", retry_after=1
            ) from error
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        if state == "57014":
            raise OverloadedError(
                f"The database took longer than {STATEMENT_TIMEOUT} s for this. Ask for less, such as a "
                "shorter time or a type.",
                retry_after=5,
            ) from error
        if state == "22023" and "set_config" in str(getattr(error, "statement", "")):
            raise NotFoundError("This tenant is not there any more.") from error
        if is_disconnect(error):
            raise DatabaseUnavailableError(
                "PostgreSQL does not answer; nothing was changed unless you were told so.",
                retry_after=2,
            ) from error


def is_disconnect(error: BaseException | None) -> bool:
    """Whether ``error`` says that the server is away, and not that a statement was wrong.

    SQLSTATE classes 08 (connection), 57P (server going down or starting), 53 (out of resources)
    per PostgreSQL's appendix A; no SQLSTATE at all means that the connection itself failed.
    """
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
    return str(state).startswith(("08", "57P", "53"))
