"""The wall between tenants, held by PostgreSQL (traps T20-T23 of the platform research)."""

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url, libpq_url, owner_url
from fleetprompt.errors import (
    DatabaseUnavailableError,
    InvalidError,
    NotFoundError,
    OverloadedError,
)
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, schema_of

MARK = "INSERT INTO fleetprompt.stale_partitions (day) VALUES ('2026-01-06')"


async def where_am_i(database: Database, schema: str | None) -> tuple[str, str]:
    opened = database.platform() if schema is None else database.tenant(schema)
    async with opened as session:
        row = (
            await session.execute(text("SELECT current_user, current_setting('search_path')"))
        ).one()
        return row[0], row[1]


async def denied(database: Database, statement: str, schema: str | None = None) -> str:
    opened = database.platform() if schema is None else database.tenant(schema)
    with pytest.raises(DBAPIError) as refused:
        async with opened as session:
            await session.execute(text(statement))
    return str(getattr(refused.value.orig, "sqlstate", ""))


async def test_without_a_tenant_every_tenant_table_is_denied(
    database: Database, owner: Database, tenant: Tenant
) -> None:
    async with owner.platform() as session:
        tables = list(
            await session.scalars(
                text("SELECT tablename FROM pg_tables WHERE schemaname = :s"), {"s": tenant.schema}
            )
        )
    assert len(tables) > 8
    for table in tables:
        assert await denied(database, f'SELECT * FROM "{tenant.schema}"."{table}"') == "42501"


async def test_one_tenant_is_denied_the_tables_of_another_and_of_the_platform(
    database: Database, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    first, second = await new_tenant(), await new_tenant()
    other = f'SELECT * FROM "{second.schema}".signals'
    assert await denied(database, other, first.schema) == "42501"
    for table in ("api_keys", "organizations", "users", "members", "data_keys"):
        assert await denied(database, f"SELECT * FROM fleetprompt.{table}", first.schema) == "42501"
    assert await denied(database, "CREATE TABLE mine (id int)", first.schema) == "42501"
    assert await denied(database, "DROP TABLE signals", first.schema) == "42501"


async def test_index_tables_show_each_tenant_its_own_rows_and_the_platform_all(
    database: Database, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    first, second = await new_tenant(), await new_tenant()
    for one in (first, second):
        async with database.tenant(one.schema) as session:
            await session.execute(text(MARK))
    async with database.tenant(first.schema) as session:
        seen = set(
            await session.scalars(text("SELECT tenant_schema FROM fleetprompt.stale_partitions"))
        )
    assert seen == {first.schema}
    async with database.platform() as session:
        seen = set(
            await session.scalars(text("SELECT tenant_schema FROM fleetprompt.stale_partitions"))
        )
    assert {first.schema, second.schema} <= seen
    forged = (
        "INSERT INTO fleetprompt.stale_partitions (tenant_schema, day)"
        f" VALUES ('{second.schema}', '2026-01-06')"
    )
    assert await denied(database, forged, first.schema) == "42501"


async def test_t20_nothing_of_a_tenant_stays_on_a_connection(
    settings: Settings, tenant: Tenant
) -> None:
    single = settings.model_copy(update={"database_pool_size": 1})
    async with Database.application(single) as database:
        before = await where_am_i(database, None)
        assert await where_am_i(database, tenant.schema) == (
            tenant.schema,
            f'"{tenant.schema}", pg_temp',
        )
        assert await where_am_i(database, None) == before

        with pytest.raises(ZeroDivisionError):
            async with database.tenant(tenant.schema) as session:
                await session.execute(text("SELECT 1"))
                raise ZeroDivisionError
        assert await where_am_i(database, None) == before

        assert await denied(database, "SELECT 1/0", tenant.schema) == "22012"
        assert await where_am_i(database, None) == before

        async def slow() -> None:
            async with database.tenant(tenant.schema) as session:
                await session.execute(text("SELECT pg_sleep(30)"))

        task = asyncio.create_task(slow())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await where_am_i(database, None) == before


async def test_t48_an_exhausted_pool_is_told_in_time(settings: Settings, tenant: Tenant) -> None:
    small = settings.model_copy(update={"database_pool_size": 1, "database_pool_timeout": 0.2})
    async with Database.application(small) as database, database.platform() as session:
        await session.execute(text("SELECT 1"))
        with pytest.raises(OverloadedError) as refused:
            async with database.tenant(tenant.schema):
                pass
        assert refused.value.retry_after


async def test_a_server_that_is_away_is_a_problem_that_callers_know(settings: Settings) -> None:
    away = settings.model_copy(
        update={"app_database_url": SecretStr("postgresql://nobody@127.0.0.1:9/none")}
    )
    async with Database.application(away) as database:
        with pytest.raises(DatabaseUnavailableError):
            async with database.platform() as session:
                await session.execute(text("SELECT 1"))


async def test_the_application_login_inherits_nothing(settings: Settings, tenant: Tenant) -> None:
    async with await psycopg.AsyncConnection.connect(application_url(settings)) as connection:
        row = await (
            await connection.execute(
                "SELECT has_schema_privilege(%s, 'USAGE'), rolsuper, rolinherit, rolcreaterole"
                " FROM pg_roles WHERE rolname = current_user",
                (tenant.schema,),
            )
        ).fetchone()
    assert row == (False, False, False, False)


HOSTILE = [
    "",
    "Acme",
    "a_b",
    "-a",
    "a-",
    "a--b",
    "pg_x",
    'a"b',
    "a;drop",
    "a/b",
    "..",
    "a|b",
    "а",
    "a" * 49,
]


@pytest.mark.parametrize("slug", HOSTILE)
def test_t22_hostile_slugs_are_refused(slug: str) -> None:
    with pytest.raises(InvalidError) as refused:
        schema_of(slug)
    assert refused.value.errors[0]["pointer"] == "/slug"


@given(st.text(alphabet="ab0-_Aé\"'|;", max_size=60), st.text(alphabet="ab0-_Aé\"'|;", max_size=60))
def test_t22_schemas_are_injective_and_fit(first: str, second: str) -> None:
    schemas = []
    for slug in (first, second):
        try:
            schemas.append(schema_of(slug))
        except InvalidError:
            return
    assert (schemas[0] == schemas[1]) == (first == second)
    assert all(len(schema.encode()) <= 63 for schema in schemas)


async def test_nobody_leaves_a_temporary_table_for_the_next_tenant(
    database: Database, tenant: Tenant
) -> None:
    assert (
        await denied(database, "CREATE TEMPORARY TABLE signals (id int)", tenant.schema) == "42501"
    )


async def test_a_statement_that_takes_too_long_is_told(database: Database, tenant: Tenant) -> None:
    with pytest.raises(OverloadedError, match="took longer"):
        async with database.tenant(tenant.schema) as session:
            await session.execute(text("SELECT set_config('statement_timeout', '50ms', true)"))
            await session.execute(text("SELECT pg_sleep(5)"))


async def test_a_tenant_that_was_deleted_is_not_found(database: Database) -> None:
    with pytest.raises(NotFoundError):
        async with database.tenant("org_never-was"):
            pass


async def test_a_connection_that_has_not_heard_of_a_tenant_is_replaced(
    settings: Settings, database: Database, owner: Database, tenant: Tenant
) -> None:
    login = database.engine.url.username
    closed = []

    @event.listens_for(database.engine.sync_engine, "invalidate")
    def allow(*_: object) -> None:
        closed.append(tenant.schema)
        with psycopg.connect(libpq_url(owner_url(settings))) as connection:
            connection.execute(f'GRANT "{tenant.schema}" TO "{login}" WITH INHERIT FALSE, SET TRUE')

    async with owner.platform() as session:
        await session.execute(text(f'REVOKE "{tenant.schema}" FROM "{login}"'))
    assert (await where_am_i(database, tenant.schema))[0] == tenant.schema
    assert closed == [tenant.schema]


async def test_a_tenant_that_the_login_may_not_be_is_refused_after_one_more_try(
    database: Database, owner: Database, tenant: Tenant
) -> None:
    login = database.engine.url.username
    async with owner.platform() as session:
        await session.execute(text(f'REVOKE "{tenant.schema}" FROM "{login}"'))
    assert await denied(database, "SELECT 1", tenant.schema) == "42501"
    # Other tests on this server work for every tenant there is.
    async with owner.platform() as session:
        await session.execute(
            text(f'GRANT "{tenant.schema}" TO "{login}" WITH INHERIT FALSE, SET TRUE')
        )
