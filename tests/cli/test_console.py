"""``fleetprompt console`` as an operator types it."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from typer.testing import CliRunner, Result

from fleetprompt.cli import console, tenants
from fleetprompt.db.engine import Database
from fleetprompt.errors import UnauthenticatedError
from fleetprompt.runtime.embedded import EmbeddedPostgres
from fleetprompt.sessions.service import Sessions, SignedIn
from fleetprompt.settings import Settings, get_settings

Run = Callable[..., Result]


@pytest.fixture
def run(
    settings: Settings, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    assert settings.master_key is not None
    monkeypatch.setenv("FLEETPROMPT_DATABASE_URL", postgres.owner_url)
    monkeypatch.setenv("FLEETPROMPT_MASTER_KEY", settings.master_key.get_secret_value())
    monkeypatch.setenv("FLEETPROMPT_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("FLEETPROMPT_PUBLIC_URL", "https://fleet.example.com/")
    get_settings.cache_clear()

    def invoke(app: Any, *arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments))

    yield invoke
    get_settings.cache_clear()


def test_a_link_signs_the_member_in_and_sign_out_ends_it(run: Run, settings: Settings) -> None:
    assert run(tenants.app, "create", "cli-console", "--owner", "ops@example.org").exit_code == 0
    who = ("--tenant", "cli-console", "--member", "OPS@example.org")
    made = run(console.app, "link", *who)
    assert made.exit_code == 0, made.output
    found = re.fullmatch(r"https://fleet\.example\.com/console/link/([\w-]{43})\n", made.stdout)
    assert found is not None

    async def sign_in() -> str:
        async with Database.application(settings) as database:
            return await Sessions(database, settings).open_by_link(found[1])

    async def look(token: str) -> SignedIn:
        async with Database.application(settings) as database:
            return await Sessions(database, settings).find(token)

    token = asyncio.run(sign_in())
    signed_in = asyncio.run(look(token))
    assert (signed_in.email, signed_in.identity.role) == ("ops@example.org", "owner")
    assert isinstance(signed_in.user_id, UUID)
    ended = run(console.app, "sign-out", *who)
    assert ended.stdout == "Ended 1 sessions of OPS@example.org.\n"
    with pytest.raises(UnauthenticatedError):
        asyncio.run(look(token))


def test_who_is_no_member_gets_no_link(run: Run) -> None:
    run(tenants.app, "create", "cli-console-two")
    for tenant in ("cli-console-two", "nobody-here"):
        refused = run(console.app, "link", "--tenant", tenant, "--member", "x@example.org")
        assert refused.exit_code == 1
        assert "error:" in refused.stderr
        assert refused.stdout == ""
