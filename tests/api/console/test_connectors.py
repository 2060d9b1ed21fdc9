"""The page of connectors: made, paired, seen and revoked by a person, on a phone and without script."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from playwright.async_api import expect
from sqlalchemy import update

from fleetprompt.connectors.models import Connector
from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import at_console, person
from tests.api.console.test_browser import (
    _COUNT_VIOLATIONS,
    _OPEN,
    _signed_in,
    browser,
    findings,
)
from tests.api.serving import Server, serving
from tests.api.support import Keys, bearer
from tests.api.test_connectors import beat, paired, said

_CODE = re.compile(r"[A-HJ-NP-Z2-9]{4}(?:-[A-HJ-NP-Z2-9]{4}){2}")
HOSTILE = "<script>alert(1)</script>\u202egpj.exe"


@pytest.fixture(scope="module")
def server(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(settings, tmp_path_factory.mktemp("server")) as running:
        yield running


async def test_a_code_is_on_the_page_that_made_it_and_on_no_other(
    app: FastAPI, keys: Keys, tenant: Tenant
) -> None:
    ada = await person(keys, tenant, "ada", "admin")
    async with at_console(app, keys, tenant, ada) as client:
        answer = await client.post("/console/connectors", data={"label": "Support"})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        (code,) = set(_CODE.findall(answer.text))
        assert f"fleetprompt-edge pair {code} --url http" in answer.text
        assert code not in (await client.get("/console/connectors")).text
        wrong = await client.post("/console/connectors", data={"label": "\u202e"})
        assert wrong.status_code == 422
        assert "printable" in wrong.text


async def test_a_viewer_sees_connectors_and_is_offered_nothing(
    app: FastAPI, keys: Keys, tenant: Tenant, owner_client: httpx.AsyncClient
) -> None:
    connector_id, _ = await paired(app, owner_client)
    ben = await person(keys, tenant, "ben", "viewer")
    async with at_console(app, keys, tenant, ben) as client:
        shown = (await client.get("/console/connectors")).text
        assert "Support mailbox" in shown
        assert "Revoke" not in shown
        assert "pairing code" not in shown
        for path, sent in (
            ("", {"label": "mine"}),
            ("", {"connector_id": connector_id}),
            (f"/{connector_id}/revoke", {}),
        ):
            answer = await client.post(f"/console/connectors{path}", data=sent)
            assert answer.status_code == 403


async def test_what_a_connector_says_is_shown_as_text(
    app: FastAPI,
    keys: Keys,
    database: Database,
    tenant: Tenant,
    owner_client: httpx.AsyncClient,
) -> None:
    connector_id, key = await paired(app, owner_client)
    problem: dict[str, Any] = {"place": HOSTILE, "kind": HOSTILE, "code": HOSTILE, "since": HOSTILE}
    await beat(app, key, connector_id, version=HOSTILE, problems=[problem])
    await said(app, key, "connector.error", connector_id, {**problem, "message": HOSTILE})
    ada = await person(keys, tenant, "ada", "admin")
    async with at_console(app, keys, tenant, ada) as client:
        shown = (await client.get("/console/connectors")).text
        assert "<script>alert" not in shown
        assert "\u202e" not in shown
        assert shown.count("&lt;script&gt;alert(1)") >= 4
        async with database.tenant(tenant.schema) as session:
            await session.execute(
                update(Connector)
                .where(Connector.id == UUID(connector_id))
                .values(last_seen_at=datetime(2026, 1, 1, tzinfo=UTC))
            )
        assert "Nothing has been heard of it" in (await client.get("/console/connectors")).text


@pytest.mark.slow
@pytest.mark.parametrize(("width", "script"), [(375, False), (1280, True)])
async def test_a_connector_is_made_paired_and_revoked_in_a_browser(
    server: Server, keys: Keys, tenant: Tenant, axe: str, width: int, script: bool
) -> None:
    size = {"width": width, "height": 800}
    async with browser(viewport=size, java_script_enabled=script) as context:
        await context.add_init_script(_COUNT_VIOLATIONS)
        page = await _signed_in(context, server, keys, tenant)
        await page.get_by_role("link", name="Connectors").click()
        await expect(page.get_by_text("There are none yet.")).to_be_visible()
        await page.get_by_label("What shall it be called?").fill("Support " + "m" * 80)
        await page.get_by_role("button", name="Make a pairing code").click()
        code = await page.locator("strong.code").inner_text()
        async with httpx.AsyncClient(base_url=server.url) as connector:
            answer = await connector.post(
                "/api/edge/v1/pair", json={"code": code, "version": "0.0.1"}
            )
            assert answer.status_code == 200, answer.text
            got = answer.json()
            beaten = await connector.post(
                "/api/edge/v1/signals",
                headers=bearer(got["key"]),
                json={
                    "type": "connector.heartbeat",
                    "source": "edge:proton_mail",
                    "occurred_at": datetime.now(UTC).isoformat(),
                    "data": {
                        "version": "0.0.1",
                        "problems": [{"place": "bridge", "code": "x" * 60}],
                    },
                    "metadata": {"connector_id": got["connector_id"]},
                    "dedupe_key": "beat",
                },
            )
            assert beaten.status_code == 201, beaten.text
        await page.goto(f"{server.url}/console/connectors")
        await expect(page.get_by_text("connected", exact=True)).to_be_visible()
        await expect(page.get_by_text("older than")).to_be_visible()
        if script:
            await page.locator("main details").evaluate_all(_OPEN)
            assert await page.evaluate("window.violations") == []
            assert await findings(page, axe) == []
        else:
            for summary in await page.locator("main details > summary").all():
                await summary.click()
        box = await page.locator("main").bounding_box()
        assert box is not None
        assert box["width"] <= width
        for part in await page.locator("main section, main button, main pre, main dd").all():
            found = await part.bounding_box()
            assert found is None or found["x"] + found["width"] <= width, await part.inner_text()
        await page.get_by_role("button", name=re.compile("Revoke Support")).click()
        await expect(page.get_by_text("revoked", exact=True)).to_be_visible()
        async with httpx.AsyncClient(base_url=server.url, headers=bearer(got["key"])) as connector:
            await page.wait_for_timeout(1000)
            assert (await connector.get("/api/v1/me")).status_code == 401
