"""What a migration may do, on the connection of its own thread.

Alembic's ``op`` is one for the whole process; here several tenants are migrated at once, each in a
thread, and the statements of one must not run on the connection of another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import Connection, text

_connection: ContextVar[Connection] = ContextVar("migrating")


@contextmanager
def on(connection: Connection) -> Iterator[None]:
    """Migrations within the block run on ``connection``."""
    token = _connection.set(connection)
    try:
        yield
    finally:
        _connection.reset(token)


def get_bind() -> Connection:
    """The connection of the migration under way."""
    return _connection.get()


def execute(statement: str) -> None:
    """Run one or several statements."""
    get_bind().execute(text(statement))
