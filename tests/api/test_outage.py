"""When PostgreSQL fails: never a success that is none, never a hang, and back by itself."""

import asyncio
import base64
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.db.migrate import migrate
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.api.operations import STREAMS, objects_of, operations
from tests.api.support import DIGEST, Keys, calling, problem_id, signal

INSTALL = f"/api/v1/packages/{DIGEST}/install"


@asynccontextmanager
async def _running(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@pytest.mark.slow
async def test_t2_t41_without_postgresql_everything_is_503_and_then_works_again(
    tmp_path: Path,
) -> None:
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "pg") as server:
        settings = Settings(
            state_dir=tmp_path / "state",
            database_url=server.owner_url,
            master_key=base64.b64encode(os.urandom(32)).decode(),
            master_key_source="env",
            # Long enough that the key is still known when the database is gone.
            key_cache_seconds=1,
        )
        migrate(settings)
        tenant = await create_tenant(settings, slug="acme", name="Acme")
        async with Database.application(settings) as database:
            keys = Keys(database, settings)
            token, operator = await keys.user(tenant), await keys.operator()
            connector = await keys.connector(tenant)
            values = await objects_of(database, keys, tenant)
        async with (
            _running(settings) as app,
            calling(app, token) as client,
            calling(app, operator) as operating,
            calling(app, connector) as connecting,
        ):
            assert (await client.post("/api/v1/signals", json=signal())).status_code == 201
            assert (await client.get("/health/ready")).status_code == 200
            server.stop()
            waited = []
            for operation in operations(app):
                # A key that is known is known for a moment yet, and being alive needs nothing.
                if operation.id in STREAMS | {"live", "read_me"}:
                    continue
                began = time.monotonic()
                caller = connecting if "edge" in operation.path else client
                caller = operating if "/tenants" in operation.path else caller
                answer = await operation.call(
                    caller, {"slug": DIGEST, "directive_type": "package.install", **values}
                )
                waited.append(time.monotonic() - began)
                assert problem_id(answer, 503) == "database-unavailable", operation.id
            assert max(waited) < 8
            assert (await client.get("/health/live")).status_code == 200
            server.start()
            until = time.monotonic() + 20
            while (await client.get("/health/ready")).status_code != 200:
                assert time.monotonic() < until
                await asyncio.sleep(0.1)
            assert (await client.post("/api/v1/signals", json=signal())).status_code == 201
            assert (await client.get("/api/v1/installations")).status_code == 200


async def test_t1_a_commit_that_fails_is_no_success(
    app: FastAPI, keys: Keys, tenant: Tenant, owner: Database, database: Database
) -> None:
    """Everything succeeds up to the commit itself, which a deferred constraint then refuses."""
    async with owner.platform() as session:
        for statement in (
            f"CREATE FUNCTION {tenant.schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$",
            f"CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON {tenant.schema}.directives"
            " DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW EXECUTE FUNCTION {tenant.schema}.refuse()",
            f"GRANT EXECUTE ON FUNCTION {tenant.schema}.refuse() TO PUBLIC",
        ):
            await session.execute(text(statement))
    async with calling(app, await keys.user(tenant)) as client:
        answer = await client.post(INSTALL)
        assert problem_id(answer, 500) == "internal"
        assert "refused at commit" not in answer.text
        assert (await client.get("/api/v1/directives")).json()["items"] == []


async def test_t48_when_all_connections_are_in_use_the_answer_is_503_soon(
    settings: Settings, keys: Keys, tenant: Tenant
) -> None:
    narrow = settings.model_copy(update={"database_pool_size": 1, "database_pool_timeout": 0.3})
    token = await keys.user(tenant)
    async with _running(narrow) as app, calling(app, token) as client:
        assert (await client.get("/api/v1/me")).status_code == 200
        held: Database = app.state.platform.database
        async with held.platform() as session:
            await session.execute(text("SELECT 1"))
            began = time.monotonic()
            answers = await asyncio.gather(*(client.get("/api/v1/directives") for _ in range(10)))
            assert time.monotonic() - began < 2
        assert {problem_id(one, 503) for one in answers} == {"overloaded"}
        assert (await client.get("/api/v1/directives")).status_code == 200


async def test_t20_one_connection_serves_tenants_in_turn_and_none_sees_anothers_rows(
    settings: Settings,
    keys: Keys,
    tenant: Tenant,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    narrow = settings.model_copy(update={"database_pool_size": 1})
    other = await new_tenant()
    first, second = await keys.user(tenant), await keys.user(other)
    async with (
        _running(narrow) as app,
        calling(app, first) as one,
        calling(app, second) as two,
    ):
        assert (await one.post(INSTALL)).status_code == 202
        for spoil in (
            one.post(INSTALL, json={"config": {"max_lines": 1}}),
            one.post(f"/api/v1/installations/{tenant.id}/run"),
        ):
            assert (await spoil).status_code in (404, 409, 422)
            assert (await two.get("/api/v1/installations")).json()["items"] == []
        cancelled = asyncio.create_task(one.get("/api/v1/directives"))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert (await two.get("/api/v1/directives")).json()["items"] == []
        assert len((await one.get("/api/v1/directives")).json()["items"]) == 1
