"""A lake of a test's own, and signals put straight into a tenant's table."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.tenants.service import Tenant

Insert = Callable[..., Awaitable[None]]

_INSERT = text(
    "INSERT INTO signals (id, type, source, occurred_at, data, dedupe_key, inserted_at)"
    " SELECT (CAST(:ids AS uuid[]))[n], :type, 'test', CAST(:at AS timestamptz), CAST(:data AS jsonb),"
    " CAST(:prefix AS text) || n, coalesce(CAST(:inserted_at AS timestamptz), clock_timestamp())"
    " FROM generate_series(1, CAST(:many AS int)) AS n"
)


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """An empty lake."""
    return tmp_path / "lake"


@pytest.fixture
def insert(database: Database) -> Insert:
    """Puts signals into a tenant's table, as ingest would in one commit."""

    async def put(
        tenant: Tenant,
        at: datetime,
        *,
        kind: str = "test.thing.happened",
        many: int = 1,
        data: str = "{}",
        inserted_at: datetime | None = None,
    ) -> None:
        async with database.tenant(tenant.schema) as session:
            await session.execute(
                _INSERT,
                {
                    "ids": [str(new_id()) for _ in range(many)],
                    "type": kind,
                    "at": at,
                    "data": data,
                    "prefix": f"{new_id()}:",
                    "inserted_at": inserted_at,
                    "many": many,
                },
            )

    return put
