"""Ways into the console and out of it."""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from fleetprompt_api.app import create_app

from fleetprompt.db.engine import Database
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import at_console, browsing, furnish, person
from tests.api.support import Keys

NewTenant = Callable[[], Awaitable[Tenant]]
PAGES = ("", "/approvals", "/directives", "/timeline", "/nothing")


async def test_a_person_signs_in_with_a_key_and_is_led_to_the_page_that_was_wanted(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    ada = await person(keys, tenant, "ada", "admin")
    key = await keys.user(tenant, "admin", user_id=ada)
    wanted = f"/console/approvals/{place.approval_id}"
    async with browsing(app) as client:
        sent_away = await client.get(wanted)
        assert sent_away.status_code == 303
        form = await client.get(sent_away.headers["location"])
        assert f'name="next" value="{wanted}"' in form.text
        answer = await client.post("/console/sign-in", data={"key": f" {key} ", "next": wanted})
        assert (answer.status_code, answer.headers["location"]) == (303, wanted)
        page = await client.get(wanted)
        assert page.status_code == 200
        assert f"ada@{tenant.slug}.example.org" in page.text
        assert key not in page.text


@pytest.mark.parametrize(
    "elsewhere",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "/console/\\evil.example"),
        *("/consolex", "javascript:alert(1)", "/docs", "", "/console/\r\nSet-Cookie: a=b"),
    ],
)
async def test_signing_in_leads_nowhere_else(
    app: FastAPI, keys: Keys, tenant: Tenant, elsewhere: str
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    key = await keys.user(tenant, "admin", user_id=ada)
    async with browsing(app) as client:
        form = await client.get("/console/sign-in", params={"next": elsewhere})
        assert 'name="next" value="/console"' in form.text
        answer = await client.post("/console/sign-in", data={"key": key, "next": elsewhere})
        assert answer.headers["location"] == "/console"


async def test_nobody_sees_a_page_without_signing_in(app: FastAPI) -> None:
    async with browsing(app) as client:
        for path in PAGES:
            for method in ("GET", "HEAD"):
                answer = await client.request(method, f"/console{path}")
                assert answer.status_code == 303
                assert answer.headers["location"].startswith("/console/sign-in?next=/console")
        answer = await client.post("/console/sign-out-everywhere", data={})
        assert answer.headers["location"] == "/console/sign-in?next=/console"


async def test_keys_that_open_nothing_are_told_so(app: FastAPI, keys: Keys, tenant: Tenant) -> None:
    async with browsing(app) as client:
        for key, status in (
            ("fp_user_nonsense", 401),
            (await keys.user(tenant, "owner"), 403),
            (await keys.connector(tenant), 403),
        ):
            answer = await client.post("/console/sign-in", data={"key": key})
            assert answer.status_code == status
            assert 'role="alert"' in answer.text
            assert key not in answer.text
            assert not client.cookies


async def test_guessing_keys_is_stopped_and_a_link_still_works(
    settings: Settings, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    key = await keys.user(tenant, "admin", user_id=ada)
    app = create_app(settings.model_copy(update={"sign_in_failures": 3}))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app, client=("192.0.2.55", 1))
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://api.test",
            headers={"Sec-Fetch-Site": "same-origin"},
        ) as client:
            for _ in range(3):
                answer = await client.post("/console/sign-in", data={"key": "fp_user_guess"})
                assert answer.status_code == 401
            answer = await client.post("/console/sign-in", data={"key": key})
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 300
            link = await Sessions(keys.database, settings).make_link(tenant, ada)
            assert (await client.post(f"/console/link/{link}")).status_code == 303


async def test_a_scanner_that_opens_a_link_does_not_use_it_up(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    link = await Sessions(keys.database, keys.settings).make_link(tenant, ada)
    async with browsing(app, headers={"Purpose": "prefetch", "Sec-Purpose": "prefetch"}) as scanner:
        for method in ("GET", "HEAD") * 3:
            answer = await scanner.request(method, f"/console/link/{link}")
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
    async with browsing(app) as client:
        assert f"ada@{tenant.slug}" in (await client.get(f"/console/link/{link}")).text
        assert (await client.post(f"/console/link/{link}")).status_code == 303
        assert (await client.get("/console")).status_code == 200
        for answer in (
            await client.get(f"/console/link/{link}"),
            await client.post(f"/console/link/{link}"),
        ):
            assert answer.status_code == 404
            assert "This link is over" in answer.text


async def test_signing_in_again_ends_the_session_before(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    async with at_console(app, keys, tenant, ada) as client:
        (before,) = client.cookies.jar
        link = await Sessions(keys.database, keys.settings).make_link(tenant, ada)
        await client.post(f"/console/link/{link}")
        (after,) = client.cookies.jar
        assert before.value != after.value
        client.cookies.set(before.name, before.value or "", domain=before.domain)
        assert (await client.get("/console")).status_code == 303


async def test_signing_out_here_leaves_others_and_everywhere_ends_all(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    async with (
        at_console(app, keys, tenant, ada) as one,
        at_console(app, keys, tenant, ada) as two,
        at_console(app, keys, tenant, ada) as three,
    ):
        answer = await one.post("/console/sign-out", data={})
        assert answer.headers["location"] == "/console/sign-in"
        assert not one.cookies
        assert (await two.get("/console")).status_code == 200
        await two.post("/console/sign-out-everywhere", data={})
        assert (await three.get("/console")).status_code == 303


async def test_a_session_is_of_one_tenant(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant, new_tenant: NewTenant
) -> None:
    other = await new_tenant()
    theirs = await furnish(database, other)
    ada = await person(keys, tenant, "ada", "owner")
    async with database.platform() as session:
        # The same person is an owner there, too; this session is none of there.
        await add_member(session, other, email=f"ada@{tenant.slug}.example.org", role="owner")
    async with at_console(app, keys, tenant, ada) as client:
        for path in (
            f"/console/approvals/{theirs.approval_id}",
            f"/console/directives/{theirs.directive_id}",
            f"/console/timeline/{theirs.correlation_id}",
            f"/console/timeline?id={theirs.directive_id}",
        ):
            answer = await client.get(path)
            assert answer.status_code == 404, path
            assert "package.configure" not in answer.text
        form = {"hash": "0" * 64, "reason": "no"}
        for path in (
            f"/console/approvals/{theirs.approval_id}/approve",
            f"/console/approvals/{theirs.approval_id}/reject",
            f"/console/approvals/{theirs.approval_id}/edit",
            f"/console/directives/{theirs.directive_id}/cancel",
        ):
            assert (await client.post(path, data=form)).status_code == 404, path
