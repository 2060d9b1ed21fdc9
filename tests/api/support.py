"""What the tests of the HTTP door share: callers with keys, and reading answers."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from fleetprompt_api.problems import MEDIA_TYPE, PROBLEMS_PATH, problem_types

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.keys import Role
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant, ensure_operations_tenant

DIGEST = "mattermost_daily_ops_digest"


@dataclass
class Keys:
    """Makes tokens without the API."""

    database: Database
    settings: Settings

    async def user(
        self, tenant: Tenant, role: Role = "owner", scopes: Iterable[str] = (), **rest: Any
    ) -> str:
        """A user key's token; all scopes unless some are named."""
        asked = KeyRequest("user", "test", scopes=frozenset(scopes), role=role, **rest)
        return await self._issue(tenant, asked)

    async def connector(self, tenant: Tenant, connector_id: str = "laptop") -> str:
        """A connector key's token."""
        return await self._issue(tenant, KeyRequest("conn", "test", connector_id=connector_id))

    async def operator(self, role: Role = "owner") -> str:
        """A token with every scope of the operations tenant."""
        return await self.user(await self.operations_tenant(), role)

    async def operations_tenant(self) -> Tenant:
        """The operator's own tenant."""
        return await ensure_operations_tenant(self.settings)

    async def member(self, tenant: Tenant, email: str, role: Role) -> UUID:
        """A member's user id."""
        async with self.database.platform() as session:
            return (await add_member(session, tenant, email=email, role=role)).user_id

    async def _issue(self, tenant: Tenant, asked: KeyRequest) -> str:
        async with self.database.platform() as session:
            return (await issue_key(session, self.settings, tenant, asked))[1]


def bearer(token: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def calling(app: FastAPI, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application under one key."""
    transport = httpx.ASGITransport(app=app)
    headers = bearer(token) if token else {}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api.test", headers=headers
    ) as client:
        yield client


def problem_id(answer: httpx.Response, status: int) -> str:
    """The id of a problem answer, after checking everything that every problem must have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    content = answer.json()
    base, _, found = content["type"].partition("#")
    assert base.endswith(PROBLEMS_PATH)
    assert found in problem_types()
    assert content["status"] == status
    assert content["title"]
    assert content["detail"]
    assert content["instance"] == answer.headers["x-request-id"]
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    return str(found)


def signal(**changed: Any) -> dict[str, Any]:
    """A signal as a producer sends it."""
    return {
        "type": "agent.execution.completed",
        "source": "test",
        "occurred_at": "2026-01-06T09:00:00+01:00",
        "data": {"n": 1},
        **changed,
    }
