"""What the pages show, and what their forms do."""

import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import urljoin
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database, quote_identifier
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.approvals.checks import Decider
from fleetprompt.directives.models import Directive
from fleetprompt.executions import service as executions
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import (
    Place,
    at_console,
    browsing,
    furnish,
    hidden_field,
    links_of,
    person,
)
from tests.api.support import Keys

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><b>{{ 7*7 }}"
    "\u202egnp.exe\u2066 \u200b\u00ad" + "W" * 300
)


def _pages(place: Place) -> list[str]:
    return [
        "/console",
        "/console/approvals",
        "/console/approvals?show=all",
        f"/console/approvals/{place.approval_id}",
        "/console/directives",
        "/console/directives?state=awaiting_approval",
        f"/console/directives/{place.directive_id}",
        f"/console/directives/{place.installed_id}",
        "/console/timeline",
        f"/console/timeline/{place.correlation_id}",
        f"/console/timeline?id={place.installed_id}&kind=log",
        "/console/installations",
        f"/console/installations/{place.installation_id}",
        "/console/executions",
        "/console/executions?state=requested&kind=package.install",
        f"/console/executions/{place.execution_id}",
        "/console/signals",
        "/console/signals?type=directive.*",
        "/support/webchat/conversations",
        "/support/webchat/conversations?status=all&mine=true",
    ]


async def _directive(database: Database, tenant: Tenant, directive_id: UUID) -> Directive:
    async with database.tenant(tenant.schema) as session:
        found = await session.get(Directive, directive_id)
        assert found is not None
        return found


async def test_every_page_is_private_strict_and_needs_no_script(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    ada = await person(keys, tenant, "ada", "admin")
    async with at_console(app, keys, tenant, ada) as client:
        for path in [*_pages(place), "/console/sign-in", "/console/nothing"]:
            page = await client.get(path)
            policy = page.headers["content-security-policy"]
            assert policy.startswith("default-src 'none';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert page.headers["cache-control"] == "no-store"
            assert page.headers["referrer-policy"] == "same-origin"
            assert page.headers["x-content-type-options"] == "nosniff"
            assert page.headers.get_list("referrer-policy") == ["same-origin"]
            assert not re.search(r"<script(?! src)|<style|\sstyle=|\son[a-z]+=", page.text), path
            assert "<form" in page.text


async def test_the_approval_page_tells_what_who_why_until_when_and_who_may(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant, approvals=2, proposer_may_approve=False)
    ada = await person(keys, tenant, "ada", "admin")
    async with at_console(app, keys, tenant, ada) as client:
        page = (await client.get(f"/console/approvals/{place.approval_id}")).text
    async with database.tenant(tenant.schema) as session:
        approval = await approvals.get_approval(session, place.approval_id)
    assert approval.action_sha256 in page
    assert hidden_field(page, "hash") == approval.action_sha256
    for told in (
        *("Europe/Berlin", "mattermost_daily_ops_digest", "0 of 2", "admin, owner"),
        *("not whoever proposed it", "user:somebody", "Version 1"),
    ):
        assert told in page, told
    assert re.search("in (3\u00a0d|2\u00a0d 23\u00a0h)", page)
    assert f"/console/timeline/{place.correlation_id}" in links_of(page)
    assert f"/console/directives/{place.directive_id}" in links_of(page)


async def test_two_people_approve_by_form_and_the_directive_may_run(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant, approvals=2)
    address = f"/console/approvals/{place.approval_id}"
    for name, state in (("ada", "awaiting_approval"), ("ben", "pending")):
        async with at_console(
            app, keys, tenant, await person(keys, tenant, name, "admin")
        ) as client:
            page = (await client.get(address)).text
            answer = await client.post(f"{address}/approve", data=_hash(page))
            assert (answer.status_code, answer.headers["location"]) == (303, address)
            assert f"{name}@{tenant.slug}.example.org" in (await client.get(address)).text
        assert (await _directive(database, tenant, place.directive_id)).state == state


async def test_rejecting_needs_a_reason_and_cancels(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    address = f"/console/approvals/{place.approval_id}"
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        page = (await client.get(address)).text
        without = await client.post(f"{address}/reject", data={**_hash(page), "reason": " "})
        assert without.status_code == 422
        assert (await _directive(database, tenant, place.directive_id)).state == "awaiting_approval"
        answer = await client.post(
            f"{address}/reject", data={**_hash(page), "reason": "not on a Friday"}
        )
        assert answer.status_code == 303
        after = (await client.get(address)).text
    assert "not on a Friday" in after
    assert "/approve" not in after
    directive = await _directive(database, tenant, place.directive_id)
    assert (directive.state, directive.error_message) == ("cancelled", "rejected: not on a Friday")


async def test_an_edit_makes_a_version_and_what_was_shown_before_releases_nothing(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    address = f"/console/approvals/{place.approval_id}"
    async with (
        at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as ada,
        at_console(app, keys, tenant, await person(keys, tenant, "ben", "admin")) as ben,
    ):
        shown_to_ben = (await ben.get(address)).text
        page = (await ada.get(address)).text
        config = {"timezone": "Europe/Lisbon"}
        typed = {**_hash(page), "param:config": json.dumps(config, indent=2)}
        edited = await ada.post(f"{address}/edit", data=typed)
        assert edited.status_code == 303, edited.text
        newest = edited.headers["location"]
        assert newest != address
        assert "version 2" in (await ada.get(newest)).text

        for verb in ("approve", "reject", "edit"):
            form = {**_hash(shown_to_ben), "reason": "no"}
            for where in (address, newest):
                refused = await ben.post(f"{where}/{verb}", data=form)
                assert refused.status_code == 409, (verb, where)
                assert "Nothing was decided" in refused.text
                assert newest in links_of(refused.text)
        directive = await _directive(database, tenant, place.directive_id)
        assert (directive.state, directive.params["config"]) == ("awaiting_approval", config)
        history = (await ben.get(newest)).text
        assert address in links_of(history)
        assert f"ada@{tenant.slug}.example.org" in history


async def test_an_edit_that_cannot_be_read_keeps_what_was_typed(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    address = f"/console/approvals/{place.approval_id}"
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        page = (await client.get(address)).text
        for field, value, pointer in (
            ("config", '{"timezone": <oops>', "/params/config"),
            ("config", '{"max_lines": NaN}', "/params/config"),
            ("installation_id", "no <id>", "/params/installation_id"),
            ("colour", '"red"', "/params/colour"),
        ):
            answer = await client.post(
                f"{address}/edit", data={**_hash(page), f"param:{field}": value}
            )
            assert answer.status_code == 422
            assert pointer in answer.text
            if field != "colour":
                assert (
                    value.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;")
                    in answer.text
                )
        assert (await client.get(address)).text.count("Version ") == page.count("Version ")


async def test_a_viewer_sees_everything_and_changes_nothing(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    viewer = await person(keys, tenant, "vera", "viewer")
    async with at_console(app, keys, tenant, viewer) as client:
        for path in _pages(place):
            assert (await client.get(path)).status_code == 200
        page = (await client.get(f"/console/approvals/{place.approval_id}")).text
        assert "may look and not decide" in page
        assert "/approve" not in page
        form = {"hash": await _shown_hash(database, tenant, place), "reason": "no"}
        for path in (
            f"/console/approvals/{place.approval_id}/approve",
            f"/console/approvals/{place.approval_id}/reject",
            f"/console/approvals/{place.approval_id}/edit",
            f"/console/directives/{place.directive_id}/cancel",
        ):
            answer = await client.post(path, data=form)
            assert answer.status_code == 403
            assert "You may not do that" in answer.text
            assert "content-security-policy" in answer.headers
    assert (await _directive(database, tenant, place.directive_id)).state == "awaiting_approval"


async def test_a_member_without_the_role_gets_403_and_one_who_is_demoted_loses_it_at_once(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    form = {"hash": await _shown_hash(database, tenant, place)}
    path = f"/console/approvals/{place.approval_id}/approve"
    async with (
        at_console(app, keys, tenant, await person(keys, tenant, "max", "member")) as member,
        at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as ada,
    ):
        assert (await member.post(path, data=form)).status_code == 403
        assert "Only admin or owner may decide" in (await member.get(path.rpartition("/")[0])).text
        async with database.platform() as session:
            await add_member(session, tenant, email=f"ada@{tenant.slug}.example.org", role="viewer")
        assert (await ada.post(path, data=form)).status_code == 403
    assert (await _directive(database, tenant, place.directive_id)).state == "awaiting_approval"


async def test_a_directive_is_called_off_by_its_button(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    address = f"/console/directives/{place.directive_id}"
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        assert f'action="{address}/cancel"' in (await client.get(address)).text
        assert (await client.post(f"{address}/cancel", data={})).status_code == 303
        page = (await client.get(address)).text
        assert f'action="{address}/cancel"' not in page
        assert f"ada@{tenant.slug}.example.org" in page
    assert (await _directive(database, tenant, place.directive_id)).state == "cancelled"


async def test_the_directive_page_tells_its_execution_and_log(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        page = (await client.get(f"/console/directives/{place.installed_id}")).text
    for told in ("the schedule has no slots", "&#34;slots&#34;: 0", "pending", "0 of 5"):
        assert told in page, told


async def test_the_timeline_answers_what_happened_to_any_id_and_filters(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    odd = "mail/../inbox #1?x=<y>"
    place = await furnish(database, tenant, correlation_id=odd)
    # As long as the platform makes them, of the longest key of an agent's execution.
    long = await furnish(database, tenant, correlation_id=f"execution:{'k' * 256}")
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        page = await client.get(f"/console/timeline/{long.correlation_id}")
        assert f"/console/directives/{long.directive_id}" in links_of(page.text)
        directive = (await client.get(f"/console/directives/{place.directive_id}")).text
        (address, *_) = [
            one for one in links_of(directive) if one.startswith("/console/timeline?id=")
        ]
        page = await client.get(address)
        assert page.status_code == 200
        assert f"/console/approvals/{place.approval_id}" in links_of(page.text)
        assert f"/console/directives/{place.directive_id}" in links_of(page.text)
        only = (await client.get("/console/timeline", params={"id": odd, "kind": "approval"})).text
        assert "version 1: asked for by" in only
        assert "directive.requested" not in only
        assert "entries are filtered out" in only
        for unknown in ("nothing-under-this", "<script>", "x" * 600, "\x00"):
            missing = await client.get("/console/timeline", params={"id": unknown})
            assert missing.status_code == 404
            assert "<script>" not in missing.text


async def test_the_overview_tells_what_waits_and_what_failed(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE directives SET state = 'failed', changed_by = 'platform', error_kind = 'auth',"
                " error_message = 'the webhook answered 403', finished_at = now() WHERE id = :id"
            ),
            {"id": place.installed_id},
        )
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        page = (await client.get("/console")).text
    assert f"/console/approvals/{place.approval_id}" in links_of(page)
    assert f"/console/directives/{place.installed_id}" in links_of(page)
    assert "the webhook answered 403" in page
    assert "mattermost_daily_ops_digest" in page


async def test_t20_getting_every_link_of_every_page_changes_nothing_in_the_database(
    app: FastAPI, keys: Keys, database: Database, owner: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    prefetch = {"Purpose": "prefetch", "Sec-Purpose": "prefetch;prerender"}
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "owner")) as client:
        before = await _everything(owner, tenant)
        waiting, seen = list(_pages(place)), set[str]()
        while waiting:
            path = waiting.pop()
            if path in seen or not path.startswith(("/console", "/support")):
                continue
            seen.add(path)
            for method in ("HEAD", "GET"):
                answer = await client.request(method, path, headers=prefetch)
                assert answer.status_code == 200, path
            waiting += [urljoin(path, one) for one in links_of(answer.text)]
            actions = re.findall(r'action="([^"]+)"', answer.text)
            for action in actions:
                for method in ("HEAD", "GET"):
                    query = {"hash": await _shown_hash(database, tenant, place), "reason": "x"}
                    await client.request(method, action, params=query, headers=prefetch)
        assert await _everything(owner, tenant) == before
    assert len(seen) >= 15


async def test_hostile_text_stays_text_on_every_page(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    """Hostile marks up nothing, and what hides or turns text is shown for what it is."""
    place = await _hostile(database, tenant)
    ada = await person(keys, tenant, "ada", "owner")
    async with at_console(app, keys, tenant, ada) as client:
        reject = f"/console/approvals/{place.approval_id}/reject"
        form = {"hash": await _shown_hash(database, tenant, place), "reason": HOSTILE}
        assert (await client.post(reject, data=form)).status_code == 303
        told = 0
        for path in [*_pages(place), f"/console/timeline?id={'<script>' * 8}"]:
            page = (await client.get(path)).text
            assert "<script>alert" not in page, path
            assert "<img src=x" not in page, path
            assert "{{ 7*7 }}" in page or "49" not in re.sub(r"[0-9a-f-]{8,}|:\d\d", "", page), path
            assert "\u202e" not in page, path
            assert "\u2066" not in page, path
            told += page.count('title="right-to-left override"')
        assert told >= 5


async def test_files_are_cached_for_ever_under_an_address_of_their_content(app: FastAPI) -> None:
    async with browsing(app) as client:
        page = (await client.get("/console/sign-in")).text
        files = sorted(set(re.findall(r'(?:href|src)="(/console/static/[^"]+)"', page)))
        assert [one.rpartition(".")[2] for one in sorted(files, key=lambda one: one[-3:])] == [
            *(".js".strip("."), "css", "svg"),
        ]
        for address in files:
            answer = await client.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            other = address.replace("/static/", "/static/0")
            assert (await client.get(other)).status_code == 404


async def test_the_bare_address_leads_to_the_console(app: FastAPI) -> None:
    async with browsing(app) as client:
        answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/console")


async def test_addresses_that_no_page_has_are_pages_too(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        for path in ("/approvals/none", "/directives/0", f"/approvals/{UUID(int=1)}", "/x/y"):
            answer = await client.get(f"/console{path}")
            assert answer.status_code == 404, path
            assert "There is nothing here" in answer.text
        assert (await client.get("/console/")).headers["location"] == "/console"


async def test_forms_that_no_page_sends_are_refused(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    path = f"/console/approvals/{place.approval_id}/approve"
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for body, headers, status in (
            (b"{}", {"Content-Type": "application/json"}, 415),
            (b"", form, 400),
            (b"hash=a&hash=b", form, 400),
            (b"hash=%FF", form, 400),
            ("hash=ä".encode(), form, 400),
            (b"hash=%00", form, 422),
            (b"hash=" + b"0" * 70_000, form, 413),
            (b"hash=0", form, 409),
        ):
            answer = await client.post(path, content=body, headers=headers)
            assert answer.status_code == status, body[:20]
            assert "<h1>" in answer.text or status == 413


def _hash(page: str) -> dict[str, str]:
    return {"hash": hidden_field(page, "hash")}


async def _shown_hash(database: Database, tenant: Tenant, place: Place) -> str:
    async with database.tenant(tenant.schema) as session:
        return (await approvals.get_approval(session, place.approval_id)).action_sha256


async def _everything(owner: Database, tenant: Tenant) -> dict[str, list[str]]:
    """Every row of the tenant and of the platform.

    But for when keys and sessions were last used, and what processes write of themselves all the time.
    """
    found: dict[str, list[str]] = {}
    async with owner.platform() as session:
        for schema in (tenant.schema, "fleetprompt"):
            for table in await _tables(session, schema):
                rows = await session.scalars(
                    text(
                        f"SELECT (to_jsonb(t) - 'last_used_at')::text FROM {quote_identifier(schema)}."
                        f"{quote_identifier(table)} t ORDER BY 1"
                    )
                )
                found[f"{schema}.{table}"] = list(rows)
    return found


async def _tables(session: AsyncSession, schema: str) -> list[str]:
    rows = await session.scalars(
        text(
            "SELECT tablename::text FROM pg_tables"
            " WHERE schemaname = :schema AND tablename NOT LIKE 'worker\\_%'"
        ),
        {"schema": schema},
    )
    return list(rows)


async def _hostile(database: Database, tenant: Tenant) -> Place:
    """A tenant in which others wrote what they could wherever they could."""
    place = await furnish(database, tenant, correlation_id="hostile")
    by = Actor(f"user:{HOSTILE}", "owner")
    params: dict[str, Any] = {
        "installation_id": str(place.directive_id),
        "config": {HOSTILE: HOSTILE},
    }
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text("UPDATE directives SET error_message = :t, causation_id = :t WHERE id = :id"),
            {"t": HOSTILE, "id": place.installed_id},
        )
        execution = (await executions.list_executions(session, directive_id=place.installed_id))[0]
        await executions.log(session, execution.id, "error", HOSTILE, **{"f": HOSTILE})
        await emit(
            session,
            NewSignal(
                type="test.hostile",
                subject_type=HOSTILE[:200],
                subject_id=HOSTILE[:200],
                correlation_id="hostile",
                data={HOSTILE: HOSTILE},
            ),
        )
        await session.execute(
            text("UPDATE installations SET last_error = :t, last_error_at = now()"), {"t": HOSTILE}
        )
    async with database.platform() as session:
        writer = await add_member(
            session, tenant, email=f"o@{tenant.slug}.example.org", role="owner"
        )
    async with database.tenant(tenant.schema) as session:
        renewed = await approvals.edit(
            session, place.approval_id, params, Decider(by, writer.user_id)
        )
    async with database.platform() as session:
        await session.execute(
            text("UPDATE fleetprompt.organizations SET name = :t WHERE id = :id"),
            {"t": HOSTILE[:200], "id": tenant.id},
        )
    return replace(place, approval_id=renewed.id)
