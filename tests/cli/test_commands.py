"""The commands as an operator types them, on a real database."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from fleetprompt.cli import keys, migrate, signals, tenants
from fleetprompt.db.engine import quote_identifier
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.settings import Settings, get_settings
from fleetprompt.tenants.service import schema_of

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

    def invoke(app: Any, *arguments: str, **rest: Any) -> Result:
        return CliRunner().invoke(app, list(arguments), **rest)

    yield invoke
    get_settings.cache_clear()


def test_a_tenant_comes_is_listed_and_goes(run: Run) -> None:
    made = run(tenants.app, "create", "cli-one", "--owner", "ops@example.org", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["schema"] == "org_cli-one"
    again = run(tenants.app, "create", "cli-one")
    assert again.exit_code == 1
    assert "already" in again.stderr
    listed = json.loads(run(tenants.app, "list", "--json").stdout)
    assert "cli-one" in {one["slug"] for one in listed}

    refused = run(tenants.app, "delete", "cli-one", input="cli-two\n")
    assert refused.exit_code == 1
    assert "cannot be undone" in refused.stderr
    assert run(tenants.app, "delete", "cli-one", input="cli-one\n").exit_code == 0
    listed = json.loads(run(tenants.app, "list", "--json").stdout)
    assert "cli-one" not in {one["slug"] for one in listed}


def test_a_key_is_issued_listed_without_its_text_and_revoked(run: Run) -> None:
    run(tenants.app, "create", "cli-keys")
    issued = run(keys.app, "issue", "cli-keys", "--role", "owner", "--name", "laptop")
    token = issued.stdout.strip()
    assert token.startswith("fp_user_")
    listed = run(keys.app, "list", "cli-keys", "--json")
    assert token not in listed.stdout
    (key,) = json.loads(listed.stdout)
    assert (key["name"], key["revoked"]) == ("laptop", None)
    shown = run(keys.app, "list", "cli-keys").stdout.splitlines()
    assert any(line.startswith(f"{key['id']}  laptop  ") for line in shown), shown
    assert run(keys.app, "revoke", "cli-keys", key["id"]).exit_code == 0
    (key,) = json.loads(run(keys.app, "list", "cli-keys", "--json").stdout)
    assert key["revoked"] is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("issue", "cli-none"), "no tenant"),
        (("issue", "cli-keys", "--kind", "root"), "--kind is one of"),
        (("issue", "cli-keys", "--role", "root"), "--role is one of"),
        (("issue", "cli-keys", "--scope", "everything"), "/scopes"),
        (("issue", "cli-keys", "--kind", "conn"), "/connector_id"),
    ],
)
def test_a_key_that_cannot_be_made_is_told_without_a_traceback(
    run: Run, arguments: tuple[str, ...], said: str
) -> None:
    run(tenants.app, "create", "cli-keys")
    refused = run(keys.app, *arguments)
    assert refused.exit_code == 1
    assert said in refused.stderr
    assert "Traceback" not in refused.output


def test_migrate_tells_where_the_database_stands(run: Run) -> None:
    done = run(migrate.app, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["platform"].startswith("p")
    assert "tenants at" in run(migrate.app).stdout


def test_replay_is_worked_off_here_and_tells_what_came_of_it(
    run: Run, postgres: EmbeddedPostgres
) -> None:
    run(tenants.app, "create", "cli-replay")
    with psycopg.connect(postgres.owner_url) as connection:
        connection.execute(f"SET search_path = {quote_identifier(schema_of('cli-replay'))}")
        connection.execute(
            "INSERT INTO signals (id, type, source, occurred_at)"
            " VALUES (gen_random_uuid(), 'a.b', 'test', '2026-01-06T09:00:00Z')"
        )
    done = run(signals.app, "replay", "cli-replay", "--since", "2026-01-06", "--json")
    told = json.loads(done.stdout)
    assert (told["state"], told["live"], told["signals_selected"]) == ("completed", False, 1)
    assert (told["findings"], told["asked_by"]) == ([], "operator")
    none = run(signals.app, "replay", "cli-replay", "--since", "2026-01-07")
    assert "No signal that is stored fits" in none.stdout
    waiting = run(
        signals.app, "replay", "cli-replay", "--stored-since", "2026-01-06", "--no-wait", "--json"
    )
    assert json.loads(waiting.stdout)["state"] == "requested"
    for wrong, pointer in (
        (["--type", "A"], "/types/0"),
        (["--until", "2026-01-05"], "/occurred_before"),
        (["--type", "directive.*"], "/types/0"),
    ):
        refused = run(signals.app, "replay", "cli-replay", "--since", "2026-01-06", *wrong)
        assert refused.exit_code == 1
        assert pointer in refused.stderr
        assert "Traceback" not in refused.output


def test_tail_shows_the_last_signals_and_then_follows(run: Run, postgres: EmbeddedPostgres) -> None:
    run(tenants.app, "create", "cli-tail")
    insert = (
        "INSERT INTO signals (id, type, source, occurred_at)"
        " VALUES (gen_random_uuid(), %s, 'test', now())"
    )
    with psycopg.connect(postgres.owner_url, autocommit=True) as connection:
        connection.execute(f"SET search_path = {quote_identifier(schema_of('cli-tail'))}")
        connection.execute(insert, ("first.one",))
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "fleetprompt.cli.main"),
                *("signals", "tail", "cli-tail", "--json"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["type"] == "first.one"
            connection.execute(insert, ("second.one",))
            assert json.loads(process.stdout.readline())["type"] == "second.one"
        finally:
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


@pytest.mark.parametrize("app", [keys.app, migrate.app, signals.app, tenants.app])
def test_every_command_says_what_it_does(app: Any) -> None:
    command = get_command(app)
    assert command.help
    for one in getattr(command, "commands", {}).values():
        assert one.help
