"""The whole path: install, configure, connect, run, posted."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from fleetprompt.directives.actors import Actor
from fleetprompt.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RateLimitedError,
)
from fleetprompt.ids import new_id
from fleetprompt.packages import runs, service, views
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import ADMIN, SLUG, Platform, connected


async def test_install_configure_connect_run_posted(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await platform.install()
    assert installation.state == "installed"
    await platform.configure(
        installation.id, timezone="Europe/Berlin", schedule_time="08:30", channel="town-square"
    )
    installation, verification = await platform.connect(installation.id, mattermost.hook_url)
    assert (installation.state, verification.state) == ("connected", "connected")
    directive, execution = await platform.run_now(installation.id)
    assert directive.correlation_id == f"digest:{platform.tenant.slug}:manual:{execution.id}"
    await platform.work()

    (post,) = mattermost.posts
    done = await platform.execution(execution.id)
    assert done.state == "completed"
    assert done.result is not None
    assert post.original == done.result["text"]
    assert done.result["ledger_state"] == "posted"
    (entry,) = await platform.ledger()
    assert (entry.state, entry.content_sha256) == ("posted", done.result["sha256"])
    assert entry.dedupe_key == (
        f"mattermost_post:{platform.tenant.slug}:{installation.id}:manual:{execution.id}"
    )
    assert entry.destination == "127.0.0.1#town-square"
    installation = await platform.installation(installation.id)
    assert installation.last_success_at is not None
    told = [kind for kind, _ in await platform.signals("mattermost.")]
    assert told == [
        "mattermost.digest.requested",
        "mattermost.digest.generated",
        "mattermost.message.posted",
    ]
    assert [kind for kind, _ in await platform.signals("value.")] == ["value.digest.posted"]
    assert [kind for kind, _ in await platform.signals("package.install.")] == [
        "package.install.requested",
        "package.install.started",
        "package.install.completed",
    ]


async def test_a_configuration_that_cannot_be_is_refused_before_anything_changes(
    platform: Platform,
) -> None:
    installation = await platform.install()
    for wrong in ({"timezone": "Europe"}, {"schedule_time": "25:00"}, {"max_lines": 1}, {"x": 1}):
        with pytest.raises(InvalidError) as caught:
            await platform.configure(installation.id, **wrong)
        assert caught.value.errors[0]["pointer"].startswith("/config")
    async with platform.database.tenant(platform.tenant.schema) as session:
        for role in ("member", "viewer"):
            with pytest.raises(ForbiddenError):
                await service.configure(
                    session, platform.tenant, installation.id, {}, Actor("user:x", role)
                )
            with pytest.raises(ForbiddenError):
                await service.install(session, platform.tenant, SLUG, {}, Actor("user:x", role))
        with pytest.raises(NotFoundError):
            await service.install(session, platform.tenant, "no_such_package", {}, ADMIN)


async def test_50_clicks_on_install_at_once_make_one_directive_and_one_installation(
    platform: Platform,
) -> None:
    """Trap T44."""

    async def click() -> tuple[Any, Any]:
        async with platform.database.tenant(platform.tenant.schema) as session:
            directive, installation = await service.install(
                session, platform.tenant, SLUG, {}, ADMIN
            )
            return directive.id, installation.id

    assert len(set(await asyncio.gather(*(click() for _ in range(50))))) == 1
    await platform.work()
    assert len({await click() for _ in range(3)}) == 1
    async with platform.database.tenant(platform.tenant.schema) as session:
        directives = await session.scalars(text("SELECT idempotency_key FROM directives"))
        (key,) = directives
        with pytest.raises(ConflictError, match="configure"):
            await service.install(session, platform.tenant, SLUG, {"max_lines": 20}, ADMIN)
    assert key.startswith(f"dir:pkg_install:{platform.tenant.slug}:{SLUG}:1.0.0:")


async def test_uninstalled_can_be_installed_again(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    first = await connected(platform, mattermost)
    async with platform.database.tenant(platform.tenant.schema) as session:
        await service.uninstall(session, platform.tenant, first.id, ADMIN)
    await platform.work()
    with pytest.raises(NotFoundError):
        await platform.installation(first.id)
    async with platform.database.tenant(platform.tenant.schema) as session:
        left = await session.scalar(text("SELECT count(*) FROM integration_credentials"))
    assert left == 0
    assert await platform.slots() == []
    second = await platform.install()
    assert (second.state, second.id != first.id) == ("installed", True)


async def test_disabled_does_not_run_and_enabled_plans_anew(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(platform, mattermost)
    planned = await platform.slots()
    assert {slot.state for slot in planned} == {"planned"}
    for _ in range(2):
        async with platform.database.tenant(platform.tenant.schema) as session:
            await service.disable(session, platform.tenant, installation.id, ADMIN)
        await platform.work()
        assert await platform.slots() == []
        with pytest.raises(ConflictError, match="disabled"):
            await platform.run_now(installation.id)
        async with platform.database.tenant(platform.tenant.schema) as session:
            await service.enable(session, platform.tenant, installation.id, ADMIN)
        await platform.work()
        assert (await platform.installation(installation.id)).state == "connected"
        assert [s.local_date for s in await platform.slots()] == [s.local_date for s in planned]


async def test_a_configuration_that_fits_no_more_is_told_before_the_state_changes(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap T45: a configuration stored under an older schema is checked against the current one."""
    installation = await connected(platform, mattermost)
    async with platform.database.tenant(platform.tenant.schema) as session:
        await service.disable(session, platform.tenant, installation.id, ADMIN)
    await platform.work()
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text('UPDATE installations SET config = config || \'{"timezone": "Mars/Olympus"}\'')
        )
        await service.enable(session, platform.tenant, installation.id, ADMIN)
    (outcome,) = await platform.work()
    assert (outcome.state, outcome.error_kind) == ("failed", "validation")
    assert "Mars/Olympus" in (outcome.error_message or "")
    assert (await platform.installation(installation.id)).state == "disabled"
    assert await platform.slots() == []


async def test_a_webhook_that_mattermost_does_not_know_degrades_with_the_reason(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await platform.install()
    wrong = mattermost.hook_url[:-3] + "aaa"
    installation, verification = await platform.connect(installation.id, wrong)
    assert (verification.state, verification.error_kind) == ("failing", "auth")
    assert installation.state == "degraded"
    assert "does not know this webhook" in (installation.last_error or "")
    installation, _ = await platform.connect(installation.id, mattermost.hook_url)
    assert installation.state == "connected"
    with pytest.raises(InvalidError):
        await platform.connect(installation.id, "https://chat.example.org/hooks/commands/xyz")


async def test_the_limit_on_running_by_hand_holds_against_20_clicks_at_once(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 32."""
    installation = await connected(platform, mattermost)
    results = await asyncio.gather(
        *(platform.run_now(installation.id) for _ in range(20)), return_exceptions=True
    )
    refused = [one for one in results if isinstance(one, RateLimitedError)]
    assert (len(results) - len(refused), len(refused)) == (3, 17)
    assert all(3590 < (one.retry_after or 0) <= 3600 for one in refused)
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE directives SET created_at = now() - interval '61 minutes', changed_by = 't'"
                " WHERE id = (SELECT min(id::text)::uuid FROM directives WHERE type = 'digest.run')"
            )
        )
    await platform.run_now(installation.id)
    with pytest.raises(RateLimitedError):
        await platform.run_now(installation.id)


async def test_another_tenants_credential_is_not_found_and_never_used(
    platform: Platform, mattermost: RunningMattermost, new_tenant: Any
) -> None:
    """Trap 34."""
    other = Platform(platform.database, platform.settings, await new_tenant())
    theirs = (await connected(other, mattermost)).config["mattermost_credential_id"]
    installation = await platform.install()
    with pytest.raises(NotFoundError):
        await platform.configure(installation.id, mattermost_credential_id=theirs)
    with pytest.raises(NotFoundError):
        await platform.configure(installation.id, mattermost_credential_id=str(new_id()))
    with pytest.raises(NotFoundError):
        await platform.vault.open_credential(platform.tenant, theirs)
    with pytest.raises(NotFoundError):
        await other.installation(installation.id)


async def test_a_configuration_that_is_applied_late_keeps_what_was_connected_meanwhile(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """It may have waited for an approval for days."""

    async def ask(**config: Any) -> None:
        async with platform.database.tenant(platform.tenant.schema) as session:
            await service.configure(session, platform.tenant, installation.id, config, ADMIN)

    async def connect_and_work() -> str | None:
        connected, _ = await platform.connect(installation.id, mattermost.hook_url)
        await platform.work()
        applied = (await platform.installation(installation.id)).config
        assert applied["mattermost_credential_id"] == connected.config["mattermost_credential_id"]
        return str(applied["schedule_time"])

    installation = await platform.install()
    await ask(schedule_time="10:00")
    assert await connect_and_work() == "10:00"
    before = (await platform.installation(installation.id)).config
    await ask(**{**before, "schedule_time": "11:00"})
    assert await connect_and_work() == "11:00"
    await platform.configure(installation.id, mattermost_credential_id=None)
    assert (await platform.installation(installation.id)).config["mattermost_credential_id"] is None


async def test_without_a_connection_a_run_says_so(platform: Platform) -> None:
    installation = await platform.install()
    assert await platform.slots() == []
    directive, _ = await platform.run_now(installation.id)
    await platform.work()
    ended = await platform.directive(directive.id)
    assert (ended.state, ended.error_kind) == ("failed", "validation")
    assert "not connected" in (ended.error_message or "")
    async with platform.database.tenant(platform.tenant.schema) as session:
        details = await views.installation_details(session, installation.id)
        with pytest.raises(ForbiddenError):
            await runs.run_now(
                session, platform.tenant, installation.id, Actor("user:v", "viewer"),
                platform.settings, platform.clock(),
            )  # fmt: skip
    assert details.missing == ["mattermost_credential_id"]
    assert details.state == "degraded"
    assert [one.state for one in details.executions] == ["failed", "completed"]


async def test_an_empty_window_is_skipped_where_the_tenant_says_so(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 41."""
    installation = await connected(platform, mattermost, empty_window="skip")
    platform.now = platform.clock() - timedelta(days=10)
    _, execution = await platform.run_now(installation.id)
    await platform.work()
    done = await platform.execution(execution.id)
    assert done.result is not None
    assert (done.state, done.result["ledger_state"]) == ("completed", "skipped_empty")
    assert mattermost.posts == []
    ((_, generated),) = await platform.signals("mattermost.digest.generated")
    assert generated["empty"] is True
