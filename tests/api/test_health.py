"""Health, and what is told when something breaks that nobody thought of."""

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.db.engine import Database
from tests.api.support import calling, problem_id


async def test_alive_and_ready(app: FastAPI) -> None:
    async with calling(app) as client:
        assert (await client.get("/health/live")).json() == {"status": "live"}
        ready = await client.get("/health/ready")
        assert ready.status_code == 200, ready.text
        assert ready.json()["status"] == "ready"


async def test_a_database_at_another_revision_is_not_ready(app: FastAPI, owner: Database) -> None:
    async with owner.platform() as session:
        before = await session.scalar(text("SELECT version_num FROM fleetprompt.alembic_version"))
        change = text("UPDATE fleetprompt.alembic_version SET version_num = :revision")
        await session.execute(change, {"revision": "p9999"})
    try:
        async with calling(app) as client:
            answer = await client.get("/health/ready")
            assert problem_id(answer, 503) == "database-unavailable"
            assert (await client.get("/health/live")).status_code == 200
    finally:
        async with owner.platform() as session:
            await session.execute(change, {"revision": before})


async def test_an_unforeseen_error_tells_its_id_and_nothing_else(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("canary-in-exception")

    app.router.add_route("/broken", broken)
    async with calling(app) as client:
        answer = await client.get("/broken", headers={"X-Request-Id": "look-me-up"})
    assert problem_id(answer, 500) == "internal"
    assert answer.json()["instance"] == "look-me-up"
    assert "canary" not in answer.text
    assert "canary-in-exception" in caplog.text
