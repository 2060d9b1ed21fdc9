"""Both chains over N schemas: resumable, halting on locks, and equal to the models (T37, T38)."""

import asyncio
import importlib
import pkgutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import RFC_4122

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.pool import NullPool

import fleetprompt
from fleetprompt.db.base import PlatformBase, TenantBase
from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.db.migrate import MigrationState, head, migrate, migrate_tenant, state
from fleetprompt.db.migrations.platform.versions.p0001_platform import UUID7_BEFORE_18
from fleetprompt.db.roles import INDEX_TABLES, create_tenant_schema, drop_tenant_schema
from fleetprompt.db.urls import sqlalchemy_url
from fleetprompt.errors import ConflictError, DatabaseUnavailableError
from fleetprompt.ids import new_id
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant


@pytest.fixture
def url(postgres: EmbeddedPostgres, settings: Settings) -> str:
    return postgres.owner_url


async def test_a_new_tenant_is_at_the_head(owner: Database, tenant: Tenant) -> None:
    async with owner.platform() as session:
        revision = await session.scalar(
            text("SELECT revision FROM fleetprompt.organizations WHERE slug = :s"),
            {"s": tenant.slug},
        )
    assert revision == head("tenant")


async def test_t37_a_killed_run_is_resumed_and_does_only_what_is_left(
    settings: Settings, url: str, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    tenants = [await new_tenant() for _ in range(5)]
    _set_back(url, [t.schema for t in tenants])
    assert not state(settings).current
    seen: list[str] = []

    def break_at_third(to: str, schema: str) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(schema)
        migrate_tenant(to, schema)

    with pytest.raises((ConflictError, KeyboardInterrupt)):
        migrate(settings, jobs=1, upgrade_tenant=break_at_third)
    assert state(settings).tenants_behind == 3

    again: list[tuple[str, int, int]] = []
    migrate(settings, progress=lambda *step: again.append(step))
    assert [done for _, done, _ in again] == [0, 1, 2, 3]
    assert not {schema for schema, _, _ in again} & set(seen)
    assert state(settings).current


async def test_a_lock_that_is_held_halts_the_run_and_names_the_tenant(
    settings: Settings, url: str, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetprompt.db.migrate.LOCK_TIMEOUT", "200ms")
    _set_back(url, [tenant.schema])
    with psycopg.connect(url) as blocker:
        blocker.execute(f"LOCK TABLE {quote_identifier(tenant.schema)}.alembic_version")
        with pytest.raises(ConflictError, match=tenant.schema) as halted:
            await asyncio.to_thread(migrate, settings)
    assert "locked" in halted.value.detail
    migrate(settings)
    assert state(settings).current


def _set_back(url: str, schemas: list[str]) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE fleetprompt.organizations SET revision = NULL WHERE schema_name = ANY(%s)",
            (schemas,),
        )


def test_a_database_that_is_away_is_told_without_its_url(settings: Settings) -> None:
    away = settings.model_copy(
        update={"database_url": SecretStr("postgresql://owner:canary-password@127.0.0.1:9/none")}
    )
    for work in (migrate, state):
        with pytest.raises(DatabaseUnavailableError) as refused:
            work(away)
        assert "canary" not in str(refused.value)


def test_an_empty_database_has_no_revision(
    settings: Settings,
) -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "pg") as server:
        own = settings.model_copy(update={"database_url": SecretStr(server.owner_url)})
        assert state(own) == MigrationState(None, head("platform"), 0, 0, head("tenant"))


def _modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(fleetprompt.__path__, "fleetprompt."):
        if module.name.endswith(".models"):
            yield module.name


@pytest.mark.parametrize("which", ["platform", "tenant"])
def test_the_models_say_what_the_migrations_make(url: str, tenant: Tenant, which: str) -> None:
    for name in _modules():
        importlib.import_module(name)
    metadata = PlatformBase.metadata if which == "platform" else TenantBase.metadata
    schema = "fleetprompt" if which == "platform" else tenant.schema
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        if which == "tenant":
            connection.execute(text(f"SET search_path = {quote_identifier(schema)}"))
            connection.dialect.default_schema_name = schema
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": which == "platform",
                "include_name": lambda name, kind, _parents: (
                    kind != "schema" or name in (None, "fleetprompt")
                ),
                "compare_server_default": False,
            },
        )
        differences = [d for d in compare_metadata(context, metadata) if _counts(d, metadata)]
    assert differences == []


def _counts(difference: object, metadata: MetaData) -> bool:
    """Indexes, constraints, and tables without a model are the migrations' own business."""
    if isinstance(difference, list):
        return True
    assert isinstance(difference, tuple)
    return difference[0] in (
        "add_table",
        "add_column",
        "remove_column",
        "modify_type",
        "modify_nullable",
    )


def test_two_runs_at_once_bring_the_same_new_schema_up_to_date(url: str) -> None:
    """Two replicas that start together both migrate."""
    schema = f"org_t{new_id().hex[-12:]}"
    with psycopg.connect(url) as connection:
        create_tenant_schema(connection, schema)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrate_tenant, url, schema) for _ in range(4)]:
            done.result()
    with psycopg.connect(url) as connection:
        drop_tenant_schema(connection, schema)


def test_ids_made_by_an_older_postgresql_are_uuid_7_and_keep_their_order(url: str) -> None:
    """Before 18 there is no uuidv7(); the order of ids is the order of a directive's transitions."""
    with psycopg.connect(url) as connection:
        connection.execute(UUID7_BEFORE_18.replace("fleetprompt.uuid7", "pg_temp.older"))
        made = [
            row[0]
            for row in connection.execute(
                "SELECT pg_temp.older() FROM generate_series(1, 500), LATERAL pg_sleep(0.000001)"
            )
        ]
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert made == sorted(made)
    assert abs((made[-1].int >> 80) / 1000 - time.time()) < 60


def test_an_owner_that_is_no_superuser_can_remove_a_tenant(url: str) -> None:
    """Hosted PostgreSQL gives no superuser: CREATEROLE and a database of its own must do."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE hosted CREATEROLE NOLOGIN")
        connection.execute(f"GRANT CREATE ON DATABASE {connection.info.dbname} TO hosted")
        connection.execute("SET ROLE hosted")
        schema = f"org_t{new_id().hex[-12:]}"
        connection.execute(f'CREATE ROLE "{schema}" NOLOGIN')
        connection.execute(f'CREATE SCHEMA "{schema}"')
        connection.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO "{schema}"')
        connection.execute("RESET ROLE")
        connection.execute("GRANT USAGE ON SCHEMA fleetprompt TO hosted")
        for table in INDEX_TABLES:
            connection.execute(f"GRANT SELECT, DELETE ON fleetprompt.{table} TO hosted")
        connection.execute("SET ROLE hosted")
        drop_tenant_schema(connection, schema)
        connection.execute("RESET ROLE")
        connection.execute("DROP OWNED BY hosted")
        connection.execute("DROP ROLE hosted")


async def test_many_tenants_that_are_behind_are_migrated_at_once_each_on_its_own_connection(
    settings: Settings, url: str, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    tenants = [await new_tenant() for _ in range(6)]
    with psycopg.connect(url) as connection:
        for tenant in tenants:
            drop_tenant_schema(connection, tenant.schema)
            create_tenant_schema(connection, tenant.schema)
    _set_back(url, [tenant.schema for tenant in tenants])
    migrate(settings, jobs=6)
    assert state(settings).current
    with psycopg.connect(url) as connection:
        counts: dict[str, int] = dict(
            connection.execute(
                "SELECT schemaname, count(*) FROM pg_tables WHERE schemaname LIKE 'org\\_%' GROUP BY 1"
            ).fetchall()
        )
    assert len({counts[tenant.schema] for tenant in tenants}) == 1
