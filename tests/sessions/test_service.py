"""Sessions and one-time links against a clock that the test sets."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.errors import ForbiddenError, NotFoundError, RateLimitedError, UnauthenticatedError
from fleetprompt.ids import new_id
from fleetprompt.sessions.guessing import WINDOW, Guessing
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, KeyRing, issue_key, revoke_key
from fleetprompt.tenants.keys import Role, Scope
from fleetprompt.tenants.members import add_member, remove_member
from fleetprompt.tenants.service import Tenant


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(database: Database, settings: Settings, clock: Clock) -> Sessions:
    return Sessions(database, settings, clock)


async def _member(
    database: Database, tenant: Tenant, role: Role = "admin", name: str = "ada"
) -> UUID:
    async with database.platform() as session:
        email = f"{name}@{tenant.slug}.example.org"
        return (await add_member(session, tenant, email=email, role=role)).user_id


async def test_a_link_opens_one_session_however_many_ask_at_once(
    sessions: Sessions, database: Database, tenant: Tenant
) -> None:
    ada = await _member(database, tenant)
    link = await sessions.make_link(tenant, ada)
    for _ in range(3):
        assert (await sessions.link_holder(link)).email.startswith("ada@")
    opened = await asyncio.gather(
        *(sessions.open_by_link(link) for _ in range(6)), return_exceptions=True
    )
    tokens = [one for one in opened if isinstance(one, str)]
    assert len(tokens) == 1
    assert sum(isinstance(one, UnauthenticatedError) for one in opened) == 5
    found = await sessions.find(tokens[0])
    assert (found.user_id, found.identity.tenant, found.identity.role) == (ada, tenant, "admin")
    with pytest.raises(UnauthenticatedError):
        await sessions.link_holder(link)


async def test_a_link_is_good_for_a_short_time(
    sessions: Sessions, database: Database, tenant: Tenant, clock: Clock, settings: Settings
) -> None:
    link = await sessions.make_link(tenant, await _member(database, tenant))
    clock.now += timedelta(minutes=settings.sign_in_link_minutes)
    for use in (sessions.link_holder, sessions.open_by_link):
        with pytest.raises(UnauthenticatedError):
            await use(link)


async def test_a_link_is_for_members_alone(sessions: Sessions, tenant: Tenant) -> None:
    with pytest.raises(NotFoundError):
        await sessions.make_link(tenant, new_id())


async def test_a_session_ends_when_idle_and_when_its_time_is_over_whatever_is_done(
    sessions: Sessions, database: Database, tenant: Tenant, clock: Clock, settings: Settings
) -> None:
    ada = await _member(database, tenant)
    idle = timedelta(minutes=settings.session_idle_minutes)
    left = await sessions.open_by_link(await sessions.make_link(tenant, ada))
    used = await sessions.open_by_link(await sessions.make_link(tenant, ada))
    opened = clock.now
    for _ in range(2):
        clock.now += idle * 0.9
        await sessions.find(used)
    with pytest.raises(UnauthenticatedError):
        await sessions.find(left)
    while clock.now + idle / 2 < opened + timedelta(hours=settings.session_hours):
        clock.now += idle / 2
        await sessions.find(used)
    clock.now = opened + timedelta(hours=settings.session_hours)
    with pytest.raises(UnauthenticatedError):
        await sessions.find(used)


async def test_a_page_that_renews_itself_keeps_no_session_alive(
    sessions: Sessions, database: Database, tenant: Tenant, clock: Clock, settings: Settings
) -> None:
    token = await sessions.open_by_link(
        await sessions.make_link(tenant, await _member(database, tenant))
    )
    for _ in range(2):
        clock.now += timedelta(minutes=settings.session_idle_minutes) * 0.45
        await sessions.find(token, noted=False)
    clock.now += timedelta(minutes=settings.session_idle_minutes) * 0.2
    with pytest.raises(UnauthenticatedError):
        await sessions.find(token)


async def test_a_role_counts_from_the_next_request_on_and_a_removal_ends_everything(
    sessions: Sessions, database: Database, tenant: Tenant
) -> None:
    await _member(database, tenant, "owner", "olga")
    ada = await _member(database, tenant, "owner")
    token = await sessions.open_by_link(await sessions.make_link(tenant, ada))
    link = await sessions.make_link(tenant, ada)
    await _member(database, tenant, "viewer")
    assert (await sessions.find(token)).identity.role == "viewer"
    async with database.platform() as session:
        await remove_member(session, tenant, ada)
    for use in (sessions.find, sessions.open_by_link):
        with pytest.raises(UnauthenticatedError):
            await use(link if use == sessions.open_by_link else token)


async def test_sign_out_ends_this_session_and_sign_out_everywhere_all_of_this_tenant(
    sessions: Sessions, database: Database, tenant: Tenant
) -> None:
    ada, ben = await _member(database, tenant), await _member(database, tenant, "member", "ben")
    mine = [await sessions.open_by_link(await sessions.make_link(tenant, ada)) for _ in range(3)]
    his = await sessions.open_by_link(await sessions.make_link(tenant, ben))
    unused = await sessions.make_link(tenant, ada)
    await sessions.close(mine[0])
    await sessions.close(mine[0])
    with pytest.raises(UnauthenticatedError):
        await sessions.find(mine[0])
    assert (await sessions.find(mine[1])).user_id == ada
    assert await sessions.close_all(tenant, ada) == 2
    for token in mine:
        with pytest.raises(UnauthenticatedError):
            await sessions.find(token)
    with pytest.raises(UnauthenticatedError):
        await sessions.open_by_link(unused)
    assert (await sessions.find(his)).user_id == ben


async def test_a_session_by_key_can_do_no_more_than_the_key_and_ends_with_it(
    sessions: Sessions, database: Database, settings: Settings, tenant: Tenant
) -> None:
    ada = await _member(database, tenant, "owner")
    await _member(database, tenant, "owner", "olga")
    ring = KeyRing(database, settings)
    async with database.platform() as session:
        asked = KeyRequest(
            "user", "k", frozenset({Scope.DIRECTIVES_READ}), role="member", user_id=ada
        )
        key, key_token = await issue_key(session, settings, tenant, asked)
    token = await sessions.open_by_key(await ring.identify(key_token))
    identity = (await sessions.find(token)).identity
    assert (identity.role, identity.scopes) == ("member", frozenset({"directives:read"}))
    assert (identity.key_id, identity.user_id) == (None, ada)
    async with database.platform() as session:
        await revoke_key(session, tenant, key.id)
    with pytest.raises(UnauthenticatedError):
        await sessions.find(token)
    await ring.close()


async def test_keys_that_are_nobodys_or_a_connectors_open_no_session(
    sessions: Sessions, database: Database, settings: Settings, tenant: Tenant
) -> None:
    ring = KeyRing(database, settings)
    for request in (
        KeyRequest("user", "k", role="owner"),
        KeyRequest("conn", "k", connector_id="laptop"),
    ):
        async with database.platform() as session:
            _, token = await issue_key(session, settings, tenant, request)
        with pytest.raises(ForbiddenError):
            await sessions.open_by_key(await ring.identify(token))
    await ring.close()


async def test_no_token_is_in_the_database(
    sessions: Sessions, database: Database, owner: Database, tenant: Tenant
) -> None:
    ada = await _member(database, tenant)
    token = await sessions.open_by_link(await sessions.make_link(tenant, ada))
    link = await sessions.make_link(tenant, ada)
    async with owner.platform() as session:
        for table in ("console_sessions", "sign_in_links"):
            rows = await session.scalars(text(f"SELECT t::text FROM fleetprompt.{table} t"))
            stored = "\n".join(rows)
            assert str(ada) in stored
            assert token not in stored
            assert link not in stored


async def test_failed_tries_from_an_address_are_bounded_exactly_under_concurrency(
    database: Database, settings: Settings, clock: Clock
) -> None:
    guessing = Guessing(database, settings, clock)
    tries = await asyncio.gather(
        *(guessing.begin("198.51.100.7") for _ in range(settings.sign_in_failures + 5)),
        return_exceptions=True,
    )
    refused = [one for one in tries if isinstance(one, RateLimitedError)]
    assert len(refused) == 5
    assert all(one.retry_after is not None and 0 < one.retry_after <= 300 for one in refused)
    await guessing.begin("198.51.100.8")
    clock.now += WINDOW
    await guessing.begin("198.51.100.7")


async def test_who_succeeds_is_not_counted_so_an_office_behind_one_address_gets_in(
    database: Database, settings: Settings, clock: Clock
) -> None:
    guessing = Guessing(database, settings, clock)
    for _ in range(settings.sign_in_failures * 3):
        await (await guessing.begin("203.0.113.9")).succeeded()


async def test_ipv6_addresses_count_by_their_64(
    database: Database, settings: Settings, clock: Clock
) -> None:
    guessing = Guessing(database, settings, clock)
    for number in range(settings.sign_in_failures):
        await guessing.begin(f"2001:db8:1:2::{number:x}")
    with pytest.raises(RateLimitedError):
        await guessing.begin("2001:db8:1:2:ffff::1")
    await guessing.begin("2001:db8:1:3::1")
