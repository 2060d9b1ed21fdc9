"""Packages, executions, signals: what their pages find, and the ways out of trouble."""

from html.parser import HTMLParser
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages.service import note_trouble
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.console.support import at_console, converse, furnish, links_of, person
from tests.api.support import Keys
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import SLUG, Platform, connected


async def test_signals_executions_and_directives_are_found_by_what_they_are(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    conversation = await converse(database, tenant, "Hello")
    story = f"webchat:{conversation}"
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "viewer")) as client:

        async def found(path: str, status: int = 200, **query: str) -> int:
            answer = await client.get(path, params=query)
            assert answer.status_code == status
            return len([one for one in links_of(answer.text) if one.startswith(f"{path}/")])

        signals = "/console/signals"
        assert await found(signals, type="webchat.*") == 2
        assert await found(signals, type="webchat.message.received") == 1
        assert await found(signals, correlation_id=story) == 2
        assert await found(signals, source="nobody") == 0
        assert await found(signals, type="webchat.*", until="2020-01-01T00:00") == 0
        assert await found(signals, type="webchat.*", since="2020-01-01") == 2
        assert await found(signals, 422, since="yesterday") == 0
        executions = "/console/executions"
        assert await found(executions, kind="package.install") == 1
        assert await found(executions, state="failed") == 0
        directives = "/console/directives"
        assert await found(directives, type="package.configure") == 1
        assert await found(directives, type="package.configure", state="failed") == 0

        one = (await client.get(f"{executions}/{place.execution_id}")).text
        assert "the schedule has no slots" in one
        assert f"{directives}/{place.installed_id}" in links_of(one)
        timeline = links_of((await client.get(f"/console/timeline/{story}")).text)
        assert any(link.startswith(f"{signals}/") for link in timeline)


async def test_a_directives_page_leads_to_the_lines_that_it_leaves_out_and_tells_when_it_expires(
    app: FastAPI, keys: Keys, database: Database, tenant: Tenant
) -> None:
    place = await furnish(database, tenant)
    async with database.tenant(tenant.schema) as session:
        await session.execute(
            text(
                "INSERT INTO execution_logs (execution_id, level, message)"
                " SELECT :id, 'info', 'line ' || n FROM generate_series(1, 200) AS n"
            ),
            {"id": place.execution_id},
        )
        await session.execute(
            text("UPDATE directives SET expires_at = '2199-05-06T07:08Z' WHERE id = :id"),
            {"id": place.installed_id},
        )
    page = f"/console/executions/{place.execution_id}?log_after="
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "viewer")) as client:
        directive = (await client.get(f"/console/directives/{place.installed_id}")).text
        (more,) = [link for link in links_of(directive) if link.startswith(page)]
        assert "line 199" in directive
        assert "line 200" not in directive
        assert "line 200" in (await client.get(more)).text
        assert "06 May 2199, 07:08" in directive


async def test_a_package_is_run_checked_and_reconnected_and_its_trouble_is_told_in_words(
    app: FastAPI,
    keys: Keys,
    database: Database,
    settings: Settings,
    tenant: Tenant,
    mattermost: RunningMattermost,
) -> None:
    platform = Platform(database, settings, tenant)
    installation = await connected(platform, mattermost)
    address = f"/console/installations/{installation.id}"
    viewer = await person(keys, tenant, "vera", "viewer")
    async with at_console(app, keys, tenant, viewer) as client:
        assert "Run now" not in (await client.get(address)).text
        for action in ("run", "test-post", "check"):
            assert (await client.post(f"{address}/{action}")).status_code == 403
    async with database.tenant(tenant.schema) as session:
        await note_trouble(session, installation.id, "auth", "The webhook answered 403.")
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        for path in ("/console/installations", address):
            page = (await client.get(path)).text
            assert "The webhook answered 403." in page
            assert "Connect it again" in page
        wrong = {"kind": "mattermost", "url": "https://chat.example.org/no-hook"}
        answer = await client.post(f"{address}/connect", data=wrong)
        assert answer.status_code == 422
        assert "no-hook" not in answer.text
        right = {"kind": "mattermost", "url": mattermost.hook_url}
        assert (await client.post(f"{address}/connect", data=right)).status_code == 303
        page = (await client.get(address)).text
        assert '<span class="badge good">connected</span>' in page
        assert mattermost.hook_url.rpartition("/")[2] not in page

        for _ in range(settings.manual_runs_per_hour):
            assert (await client.post(f"{address}/run")).status_code == 303
        answer = await client.post(f"{address}/run")
        assert answer.status_code == 429
        assert "runs on demand in an hour" in answer.text
        assert (await client.post(f"{address}/switch", data={"to": "off"})).status_code == 303


class SettingsForm(HTMLParser):
    """What the settings' form would send as it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.select, self.fields = False, "", dict[str, str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "form":
            self.inside = (given.get("action") or "").endswith("/config")
        if not self.inside:
            return
        name, value = given.get("name") or "", given.get("value")
        if tag == "select":
            self.select = name
        elif tag == "option" and "selected" in given:
            self.fields[self.select] = ""
        elif tag == "input" and given.get("type") != "checkbox":
            self.fields[name] = value or ""
        elif tag == "input" and "checked" in given:
            self.fields[name] = "on"

    def handle_data(self, data: str) -> None:
        if self.fields.get(self.select) == "":
            self.fields[self.select] = data


def settings_in(page: str) -> dict[str, str]:
    form = SettingsForm()
    form.feed(page)
    return form.fields


async def test_a_package_is_installed_and_set_in_its_form(
    app: FastAPI, keys: Keys, database: Database, settings: Settings, tenant: Tenant
) -> None:
    platform = Platform(database, settings, tenant)
    packages = "/console/installations"
    viewer = await person(keys, tenant, "vera", "viewer")
    async with at_console(app, keys, tenant, viewer) as client:
        assert "Install" not in (await client.get(packages)).text.replace("Installed", "")
        assert (await client.post(packages, data={"package": SLUG})).status_code == 403
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        assert f'value="{SLUG}"' in (await client.get(packages)).text
        assert (await client.post(packages, data={"package": "nothing"})).status_code == 404
        answer = await client.post(packages, data={"package": SLUG})
        await platform.work()
        assert f'value="{SLUG}"' not in (await client.get(packages)).text
        address = answer.headers["location"]

        page = (await client.get(address)).text
        assert "Still needed: Incoming webhook." in page
        form = settings_in(page)
        assert (form["timezone"], form["schedule_time"], form["enabled"]) == ("UTC", "09:00", "on")
        assert "mattermost_credential_id" not in form
        wrong = form | {"timezone": "Berlin", "max_lines": "many"}
        answer = await client.post(f"{address}/config", data=wrong)
        assert answer.status_code == 422
        assert settings_in(answer.text) == wrong
        assert answer.text.count("Must be a whole number.") == 1
        right = form | {"timezone": "Europe/Berlin", "channel": "#ops", "max_lines": "60"}
        del right["include_cost_estimates"]
        assert (await client.post(f"{address}/config", data=right)).status_code == 303
        await platform.work()
        installation = await platform.installation(UUID(address.rpartition("/")[2]))
        told = ("timezone", "channel", "max_lines", "include_cost_estimates", "enabled", "team")
        assert [installation.config[name] for name in told] == [
            *("Europe/Berlin", "ops", 60, False, True, None)
        ]
        again = await client.post(f"{address}/config", data=right | {"schedule_time": "08:00"})
        assert again.status_code == 409, "somebody has set it since the form was shown"
        assert (await platform.installation(installation.id)).config["schedule_time"] == "09:00"


async def test_a_message_that_may_have_arrived_is_settled_by_its_buttons(
    app: FastAPI,
    keys: Keys,
    database: Database,
    settings: Settings,
    tenant: Tenant,
    mattermost: RunningMattermost,
) -> None:
    platform = Platform(database, settings, tenant)
    installation = await connected(platform, mattermost)
    _, execution = await platform.run_now(installation.id)
    await platform.work()
    (message,) = await platform.ledger()
    async with database.tenant(tenant.schema) as session:
        found = await session.get_one(OutboundMessage, message.id)
        found.state, found.settled_at, found.sending_at = "unknown", None, system_clock()
        found.remote_place = None
        # Somebody had it posted again, and that answer was lost too.
        found.resolution, found.resolved_by = "posted_again", found.directive_id
        found.resolved_at = system_clock()
    address = f"/console/installations/{installation.id}"
    settle = f"{address}/outbound-messages/{message.id}/settle"
    async with at_console(app, keys, tenant, await person(keys, tenant, "ada", "admin")) as client:
        page = (await client.get(address)).text
        assert f"/console/executions/{execution.id}" in links_of(page)
        assert 'value="give_up"' in page
        assert 'value="look"' not in page
        assert (await client.post(settle, data={"action": "forget"})).status_code == 400
        assert (await client.post(settle, data={"action": "look"})).status_code == 409
        elsewhere = settle.replace(str(message.id), str(new_id()))
        assert (await client.post(elsewhere, data={"action": "give_up"})).status_code == 404
        assert (await client.post(settle, data={"action": "give_up"})).status_code == 303
        await platform.work()
        page = (await client.get(address)).text
        assert "given up" in page
        assert 'value="give_up"' not in page
    assert len(mattermost.posts) == 1
