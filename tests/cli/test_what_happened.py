"""``fleetprompt what-happened`` as an operator types it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fleetprompt.cli.main import app
from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings, get_settings
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.tenants.service import Tenant, create_tenant

Run = Callable[..., Result]


@pytest.fixture
def run(
    settings: Settings, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    assert settings.master_key is not None
    monkeypatch.setenv("FLEETPROMPT_DATABASE_URL", postgres.owner_url)
    monkeypatch.setenv("FLEETPROMPT_MASTER_KEY", settings.master_key.get_secret_value())
    monkeypatch.setenv("FLEETPROMPT_STATE_DIR", str(settings.state_dir))
    get_settings.cache_clear()

    def invoke(*arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(app, ["what-happened", *arguments], env=environment)

    yield invoke
    get_settings.cache_clear()


@pytest.fixture
def told(settings: Settings) -> Tenant:
    """A tenant with three signals under ``mail:1/x``."""

    async def make() -> Tenant:
        slug = f"t{new_id().hex[-12:]}"
        tenant = await create_tenant(settings, slug=slug, name=slug)
        async with Database.application(settings) as database, database.tenant(tenant.schema) as s:
            for day, subject in ((7, "a"), (8, "b\x1b[31m"), (8, "c [bold]")):
                at = datetime(2026, 3, day, 9, 0, tzinfo=UTC)
                signal: dict[str, Any] = {"subject_type": "mail", "subject_id": subject}
                await emit(
                    s,
                    NewSignal("mail.read", occurred_at=at, correlation_id="mail:1/x", **signal),
                )
        return tenant

    return asyncio.run(make())


def test_people_get_a_line_an_entry_under_its_day(run: Run, told: Tenant) -> None:
    done = run(told.slug, "mail:1/x")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "mail:1/x",
        "",
        "Saturday, 07 March 2026 (UTC)",
        "09:00:00.000  signal      mail.read from platform about mail a",
        "",
        "Sunday, 08 March 2026 (UTC)",
        "09:00:00.000  signal      mail.read from platform about mail b [31m",
        "09:00:00.000  signal      mail.read from platform about mail c [bold]",
    ]


def test_a_terminal_gets_colours(run: Run, told: Tenant) -> None:
    assert "\x1b[" not in run(told.slug, "mail:1/x").stdout
    coloured = run(told.slug, "mail:1/x", FORCE_COLOR="1", TERM="xterm-256color").stdout
    assert "\x1b[36m" in coloured
    assert "\x1b[31m" not in coloured, "what was sent drew its own colour"


def test_what_is_left_out_is_told(run: Run, told: Tenant) -> None:
    assert "+2 more; --limit" in run(told.slug, "mail:1/x", "--limit", "1").stdout


def test_programs_get_json(run: Run, told: Tenant) -> None:
    found = json.loads(run(told.slug, "mail:1/x", "--json").stdout)
    assert found["correlation_ids"] == ["mail:1/x"]
    assert [entry["kind"] for entry in found["entries"]] == ["signal"] * 3
    assert found["entries"][0]["at"] == "2026-03-07T09:00:00Z"


def test_what_is_not_there_is_an_error(run: Run, told: Tenant) -> None:
    for arguments in ((told.slug, "nothing:1"), ("no-such-tenant", "mail:1/x")):
        done = run(*arguments)
        assert done.exit_code == 1
        assert done.stderr.startswith("error: There is no")
