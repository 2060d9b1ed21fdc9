"""Executions, directives and the platform's own rows go by their own rules."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import DirectiveParams, DirectiveType
from fleetprompt.errors import IdempotencyMismatchError, InvalidError
from fleetprompt.ids import new_id
from fleetprompt.retention.expired import remove_expired
from fleetprompt.retention.pace import Pace
from fleetprompt.retention.records import (
    empty_directives,
    remove_executions,
)
from fleetprompt.retention.terms import drop_term, set_term, terms_of
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant

FIRST_KEPT = date(2026, 3, 17)
BEFORE = datetime(2026, 3, 16, 23, 59, tzinfo=UTC)
AFTER = datetime(2026, 3, 17, 0, 0, tzinfo=UTC)


async def one(database: Database, tenant: Tenant, statement: str, **values: object) -> object:
    async with database.tenant(tenant.schema) as session:
        result = await session.execute(text(statement), values)
        return result.scalar_one_or_none() if result.returns_rows else None  # type: ignore[attr-defined]


async def execution(
    database: Database, tenant: Tenant, finished_at: datetime | None, message: str | None = None
) -> UUID:
    """A finished execution with a log line and, if asked for, a message in that state."""
    id_ = new_id()
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO executions (id, kind, state, finished_at) VALUES (:id, 'digest.run',"
                " CASE WHEN CAST(:at AS timestamptz) IS NULL THEN 'running' ELSE 'completed' END, :at)"
            ),
            {"id": id_, "at": finished_at},
        )
        await session.execute(
            text(
                "INSERT INTO execution_logs (execution_id, level, message) VALUES (:id, 'info', 'x')"
            ),
            {"id": id_},
        )
        if message:
            await session.execute(
                text(
                    "INSERT INTO outbound_messages (id, dedupe_key, provider, destination, state,"
                    " content_sha256, execution_id) VALUES (:key, :key, 'smtp', 'x', :state, '', :id)"
                ),
                {"key": new_id(), "state": message, "id": id_},
            )
    return id_


async def test_finished_executions_go_with_their_logs_and_the_ledger_stays(
    database: Database, tenant: Tenant, pace: Pace
) -> None:
    for _ in range(4):
        await execution(database, tenant, BEFORE)
    await execution(database, tenant, BEFORE, "posted")
    kept = {
        await execution(database, tenant, BEFORE, "unknown"),
        await execution(database, tenant, AFTER),
        await execution(database, tenant, None),
    }
    assert await remove_executions(database, tenant, FIRST_KEPT, pace) == 5
    async with database.tenant(tenant.schema) as session:
        assert set(await session.scalars(text("SELECT id FROM executions"))) == kept
        left = await session.scalars(text("SELECT execution_id FROM execution_logs"))
        assert set(left) == kept
    # What was sent stays known, so that it is never sent again.
    assert await one(database, tenant, "SELECT count(*) FROM outbound_messages") == 2


class Letter(DirectiveParams):
    """What a letter says, to whom."""

    to: UUID
    text: str


_ENDED = """
    UPDATE directives SET state = :state, lease_token = NULL, lease_expires_at = NULL,
      finished_at = :at, result = '{"said": "all of it"}' WHERE id = :id
"""
_RUNNING = (
    "UPDATE directives SET state = 'running', lease_token = id, lease_expires_at = now()"
    " WHERE id = :id"
)


async def test_directives_lose_their_content_and_keep_their_keys(
    database: Database, tenant: Tenant, pace: Pace
) -> None:
    types = {"letter.send": DirectiveType("letter.send", "Sends a letter.", Letter, _never)}
    to = new_id()

    async def ask(key: str, words: str = "Dear Ms Weber") -> tuple[UUID, bool]:
        async with database.tenant(tenant.schema) as session:
            directive, created = await request_directive(
                session,
                tenant,
                "letter.send",
                {"to": str(to), "text": words},
                idempotency_key=key,
                actor=Actor("user:1", "owner"),
                types=types,
            )
            return directive.id, created

    ended = ("succeeded", "failed", "cancelled")
    old = {}
    for state in (*ended, "unknown", "pending"):
        old[state], _ = await ask(state)
        if state in ("succeeded", "unknown"):
            await one(database, tenant, _RUNNING, id=old[state])
        if state != "pending":
            await one(database, tenant, _ENDED, id=old[state], state=state, at=BEFORE)
    first_kept = datetime.now(UTC).date() + timedelta(days=2)
    assert await empty_directives(database, tenant, first_kept, pace) == 3
    assert await empty_directives(database, tenant, first_kept, pace) == 0
    async with database.tenant(tenant.schema) as session:
        rows = await session.execute(text("SELECT state, params FROM directives"))
        for state, params in rows:
            words = {} if state in ended else {"text": "Dear Ms Weber"}
            assert params == {"to": str(to)} | words
        left = await session.scalars(text("SELECT state FROM directives WHERE result IS NOT NULL"))
        assert list(left) == ["unknown"]
    # Who asks again is answered as before: the same directive, or that it was something else.
    assert await ask("succeeded") == (old["succeeded"], False)
    with pytest.raises(IdempotencyMismatchError):
        await ask("succeeded", "Dear Mr Weber")


async def _never(*_: object) -> dict[str, object]:
    raise NotImplementedError


async def test_terms_are_the_tenants_own_or_the_platforms(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    async with database.platform() as session:
        with pytest.raises(InvalidError, match="14 to"):
            await set_term(session, tenant, "executions", 13, by="operator")
        await set_term(session, tenant, "executions", 14, by="operator")
        await set_term(session, tenant, "lake", 400, by="operator")
        await set_term(session, tenant, "lake", None, by="operator")
        terms = await terms_of(session, settings, tenant)
        assert {name: (term.days, term.own) for name, term in terms.items()} == {
            "signals": (30, False),
            "lake": (None, True),
            "executions": (14, True),
            "directives": (90, False),
            "conversations": (None, False),
        }
        await drop_term(session, tenant, "executions")
        assert (await terms_of(session, settings, tenant))["executions"].days == 90


async def test_what_expired_goes_and_nothing_that_still_holds(
    database: Database, tenant: Tenant, pace: Pace
) -> None:
    now = datetime.now(UTC)
    ages: dict[str, tuple[datetime | None, datetime | None]] = {
        "live": (None, None),
        "fresh": (now, None),
        "later": (now + timedelta(days=9), None),
        "old": (now - timedelta(days=91), None),
        "revoked": (None, now - timedelta(days=91)),
    }
    async with database.platform() as session:
        for name, (expires, revoked) in ages.items():
            await session.execute(
                text(
                    "INSERT INTO fleetprompt.api_keys (id, organization_id, kind, name, token_hash, hint,"
                    " scopes, role, expires_at, revoked_at) VALUES (:id, :tenant, 'user', :name,"
                    " sha256(CAST(:secret AS bytea)), '', '{}', 'owner', :expires, :revoked)"
                ),
                {
                    "id": new_id(),
                    "secret": new_id().bytes,
                    "tenant": tenant.id,
                    "name": name,
                    "expires": expires,
                    "revoked": revoked,
                },
            )
    removed = await remove_expired(database, now, pace)
    assert removed["api_keys"] >= 2
    async with database.platform() as session:
        left = await session.scalars(
            text("SELECT name FROM fleetprompt.api_keys WHERE organization_id = :id"),
            {"id": tenant.id},
        )
        assert set(left) == {"live", "fresh", "later"}
    assert not any((await remove_expired(database, now, pace)).values())
