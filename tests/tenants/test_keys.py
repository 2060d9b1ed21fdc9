"""API keys: shape, hashing, limits of the issuer, expiry and revocation (T29, T30)."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from fleetprompt import secrets
from fleetprompt.db.engine import Database
from fleetprompt.errors import ForbiddenError, InvalidError, NotFoundError, UnauthenticatedError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import (
    Identity,
    KeyRequest,
    KeyRing,
    issue_key,
    list_keys,
    revoke_key,
)
from fleetprompt.tenants.keys import ROLES, Kind, Scope, at_least, hint_of, make_token, well_formed
from fleetprompt.tenants.members import add_member, remove_member
from fleetprompt.tenants.service import Tenant

USER = KeyRequest(kind="user", name="test", role="admin")


async def issue(
    database: Database, settings: Settings, tenant: Tenant, request: KeyRequest = USER
) -> str:
    async with database.platform() as session:
        return (await issue_key(session, settings, tenant, request))[1]


@pytest.mark.parametrize("kind", ["user", "conn", "pub"])
def test_a_key_has_the_shape_that_the_secret_guard_knows(kind: Kind) -> None:
    token = make_token(kind)
    assert len(token) == len(f"fp_{kind}_") + 43
    assert well_formed(token)
    assert list(secrets.find({"note": f"use {token}"}))
    assert token not in secrets.redact(f"key {token} was used")
    assert secrets.may_hold_secret(f'{{"note":"{token}"}}'.encode())
    assert hint_of(token).rstrip("…") in token
    assert len(hint_of(token)) < 16


@given(st.integers(0, 200), st.characters(codec="ascii"))
def test_a_changed_character_is_noticed_without_a_database(place: int, other: str) -> None:
    token = make_token("user")
    place %= len(token)
    changed = token[:place] + other + token[place + 1 :]
    assert well_formed(changed) == (changed == token)


async def test_a_key_says_whose_it_is(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    ring = KeyRing(database, settings)
    identity = await ring.identify(await issue(database, settings, tenant))
    assert identity.tenant == tenant
    assert identity.role == "admin"
    identity.require(Scope.SIGNALS_WRITE, "member")
    with pytest.raises(ForbiddenError):
        identity.require(Scope.SIGNALS_WRITE, "owner")
    with pytest.raises(ForbiddenError):
        identity.require(Scope.TENANTS_ADMIN)
    await ring.close()


async def test_only_a_hash_is_kept(database: Database, settings: Settings, tenant: Tenant) -> None:
    token = await issue(database, settings, tenant)
    async with database.platform() as session:
        rows = (await session.execute(text("SELECT k::text FROM fleetprompt.api_keys k"))).scalars()
        assert not [row for row in rows if token[8:] in row]


async def test_t29_revocation_takes_effect_within_a_second(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    ring = KeyRing(database, settings)
    token = await issue(database, settings, tenant)
    identity = await ring.identify(token)
    assert identity.key_id is not None
    async with database.platform() as session:
        await revoke_key(session, tenant, identity.key_id)
    revoked = time.monotonic()
    with pytest.raises(UnauthenticatedError):
        while time.monotonic() - revoked < 5:
            await ring.identify(token)
            await asyncio.sleep(0.02)
    assert time.monotonic() - revoked <= 1.0
    await ring.close()


async def test_an_expired_key_and_a_deleted_tenants_key_are_refused(
    database: Database, settings: Settings, tenant: Tenant, owner: Database
) -> None:
    at = datetime.now(UTC) + timedelta(minutes=1)
    brief = KeyRequest(kind="user", name="brief", role="viewer", expires_at=at)
    token = await issue(database, settings, tenant, brief)
    await KeyRing(database, settings).identify(token)
    with pytest.raises(UnauthenticatedError):
        await KeyRing(database, settings, clock=lambda: at).identify(token)
    lasting = await issue(database, settings, tenant)
    async with owner.platform() as session:
        await session.execute(
            text("UPDATE fleetprompt.organizations SET state = 'deleting' WHERE id = :id"),
            {"id": tenant.id},
        )
    with pytest.raises(UnauthenticatedError):
        await KeyRing(database, settings).identify(lasting)


async def test_t30_use_is_noted_once_a_minute_and_not_with_each_request(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    token = await issue(database, settings, tenant)
    ring = KeyRing(database, settings)
    await asyncio.gather(*(ring.identify(token) for _ in range(200)))
    await ring.close()
    async with database.platform() as session:
        first = (await list_keys(session, tenant))[0].last_used_at
    assert first is not None
    another_process = KeyRing(database, settings)
    await another_process.identify(token)
    await another_process.close()
    async with database.platform() as session:
        assert (await list_keys(session, tenant))[0].last_used_at == first


async def test_an_issuer_gives_no_more_than_it_has(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    issuer = Identity(
        new_id(), tenant, "user", frozenset({Scope.SIGNALS_READ}), "admin", None, None
    )

    async def attempt(request: KeyRequest) -> None:
        async with database.platform() as session:
            await issue_key(session, settings, tenant, request, issuer=issuer)

    read = frozenset({Scope.SIGNALS_READ.value})
    await attempt(KeyRequest(kind="user", name="ok", role="member", scopes=read))
    with pytest.raises(ForbiddenError):
        await attempt(KeyRequest(kind="user", name="more", role="member"))
    with pytest.raises(ForbiddenError):
        await attempt(KeyRequest(kind="user", name="above", role="owner", scopes=read))


@pytest.mark.parametrize(
    ("request_", "pointer"),
    [
        (KeyRequest(kind="user", name="", role="member"), "/name"),
        (KeyRequest(kind="user", name="x"), "/role"),
        (KeyRequest(kind="conn", name="x"), "/connector_id"),
        (KeyRequest(kind="conn", name="x", connector_id="a\nb"), "/connector_id"),
        (KeyRequest(kind="user", name="x", role="owner", scopes=frozenset({"all"})), "/scopes"),
        (
            KeyRequest(kind="user", name="x", role="owner", scopes=frozenset({"tenants:admin"})),
            "/scopes",
        ),
        (
            KeyRequest(kind="user", name="x", role="owner", expires_at=datetime(2030, 1, 1)),
            "/expires_at",
        ),
    ],
)
async def test_a_key_that_cannot_be_made_says_why(
    database: Database, settings: Settings, tenant: Tenant, request_: KeyRequest, pointer: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        await issue(database, settings, tenant, request_)
    assert [e["pointer"] for e in refused.value.errors] == [pointer]


async def test_another_tenants_key_cannot_be_revoked(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    identity = await KeyRing(database, settings).identify(await issue(database, settings, tenant))
    assert identity.key_id is not None
    other = Tenant(new_id(), "other", "org_other")
    with pytest.raises(NotFoundError):
        async with database.platform() as session:
            await revoke_key(session, other, identity.key_id)


def test_roles_are_ordered() -> None:
    assert [at_least("member", role) for role in ROLES] == [True, True, False, False]
    assert not at_least(None, "viewer")
    assert not at_least("root", "viewer")


async def test_a_persons_key_can_do_no_more_than_the_person_may_now(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    async with database.platform() as session:
        await add_member(session, tenant, email="first@example.org", role="owner")
        person = await add_member(session, tenant, email="second@example.org", role="owner")
    request = KeyRequest(kind="user", name="own", role="owner", user_id=person.user_id)
    token = await issue(database, settings, tenant, request)
    assert (await KeyRing(database, settings).identify(token)).role == "owner"
    async with database.platform() as session:
        await add_member(session, tenant, email="second@example.org", role="viewer")
    assert (await KeyRing(database, settings).identify(token)).role == "viewer"
    async with database.platform() as session:
        await remove_member(session, tenant, person.user_id)
        assert all(key.revoked_at for key in await list_keys(session, tenant))
    with pytest.raises(UnauthenticatedError):
        await KeyRing(database, settings).identify(token)


async def test_a_key_in_use_is_asked_for_again_before_anybody_must_wait(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    token = await issue(database, settings, tenant)
    ring = KeyRing(database, settings.model_copy(update={"key_cache_seconds": 1.0}))
    await ring.identify(token)
    longest = 0.0
    ends = time.monotonic() + 2.5
    while time.monotonic() < ends:
        begun = time.monotonic()
        waiting = ring.identify(token)
        with pytest.raises(StopIteration):
            # Answered without giving way to the event loop even once: no look-up was waited for.
            for _ in range(2):
                waiting.send(None)
        longest = max(longest, time.monotonic() - begun)
        await asyncio.sleep(0.01)
    await ring.close()
