"""What the engine is compared with: the same two pieces of work as tasks of Procrastinate."""

import psycopg
from procrastinate import App, PsycopgConnector
from psycopg import sql
from sqlalchemy.engine import make_url

from bench.directives.types import NOTHING, TELL, tell_start
from fleetprompt.db.urls import libpq_url

# One for each job at once that is tried, one that listens, one for heartbeats.
_CONNECTIONS = 66


async def do_nothing(number: int) -> None:
    """The task that costs nothing."""


async def tell(number: int) -> None:
    """The task that says when it was entered."""
    tell_start(number)


def procrastinate_url(owner_url: str) -> str:
    """The database that Procrastinate has for itself on the owner's server."""
    return libpq_url(make_url(owner_url).set(database="procrastinate"))


def procrastinate(url: str) -> App:
    """Procrastinate on the database ``url``, not open yet."""
    app = App(connector=PsycopgConnector(conninfo=url, min_size=4, max_size=_CONNECTIONS))
    app.task(name=NOTHING)(do_nothing)
    app.task(name=TELL)(tell)
    return app


async def prepare(owner_url: str) -> None:
    """Make the database, with Procrastinate's own schema."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier("procrastinate")))
    async with procrastinate(procrastinate_url(owner_url)).open_async() as app:
        await app.schema_manager.apply_schema_async()
