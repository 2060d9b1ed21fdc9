"""The whole path: install, configure, connect, run, posted; and what may go wrong on it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.queue import ClaimedDirective, claim
from fleetprompt.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    RateLimitedError,
)
from fleetprompt.executions import service as executions
from fleetprompt.executions.running import RunningExecution
from fleetprompt.ids import new_id
from fleetprompt.outbound import ledger
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.packages import runs, service
from fleetprompt.packages.mattermost_daily_ops_digest import run as digest_run
from fleetprompt.packages.mattermost_daily_ops_digest.requests import RUN, DigestParams
from fleetprompt.packages.scheduling import request_slots
from fleetprompt.schedules import slots as schedule_slots
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import ADMIN, SLUG, Platform


async def connected(platform: Platform, mattermost: RunningMattermost, **config: Any) -> Any:
    installation = await platform.install()
    await platform.configure(installation.id, **config)
    installation, verification = await platform.connect(installation.id, mattermost.hook_url)
    assert verification.state == "connected"
    assert mattermost.posts == [], "the check posted"
    return installation


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


@pytest.mark.parametrize(
    ("switches", "kind", "attempts", "state", "posts"),
    [
        ({"hook_deleted": True}, "auth", 1, "rejected", 0),
        ({"webhooks_enabled": False}, "validation", 1, "rejected", 0),
        ({"hook_channel_locked": True}, "auth", 1, "rejected", 0),
        ({"proxy": "html_200"}, "validation", 1, "rejected", 0),
        ({"proxy": "redirect_to_https"}, "validation", 1, "rejected", 0),
        ({"rate_limited": True}, "rate_limit", 6, "retryable", 0),
        ({"fault": "reset_after_save"}, "network", 1, "unknown", 1),
        ({"fault": "error_after_save"}, "network", 1, "unknown", 1),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_failures_are_classed_shown_and_never_posted_twice(
    platform: Platform,
    mattermost: RunningMattermost,
    switches: dict[str, Any],
    kind: str,
    attempts: int,
    state: str,
    posts: int,
) -> None:
    """Traps 6, 11 and 12: what is retried, what is not, and what nobody can know."""
    installation = await connected(platform, mattermost, channel="town-square")
    mattermost.set(**switches)
    directive, execution = await platform.run_now(installation.id)
    for _ in range(attempts + 1):
        await platform.work()
        await platform.hours_pass()
    ended = await platform.directive(directive.id)
    assert (ended.state, ended.error_kind) == ("unknown" if state == "unknown" else "failed", kind)
    assert ended.attempt == attempts
    (entry,) = await platform.ledger()
    assert (entry.state, entry.error_kind) == (state, kind)
    assert len(mattermost.posts) == posts
    ((_, told),) = await platform.signals("mattermost.message.failed")
    assert told["error_kind"] == kind
    assert told["outcome"] == ("unknown" if state == "unknown" else "not_posted")
    installation = await platform.installation(installation.id)
    assert (installation.state, installation.last_error_kind) == ("degraded", kind)
    assert installation.last_error == ended.error_message
    assert (await platform.execution(execution.id)).state == "failed"
    mattermost.state.behaviour = type(mattermost.behaviour)()
    await platform.work()
    assert len(mattermost.posts) == posts


async def test_a_limited_digest_is_posted_once_when_the_limit_is_gone(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(platform, mattermost)
    mattermost.set(rate_limited=True, retry_after_seconds=120)
    directive, _ = await platform.run_now(installation.id)
    (outcome,) = await platform.work()
    assert outcome.state == "pending"
    waiting = await platform.directive(directive.id)
    assert (waiting.available_at - platform.clock()).total_seconds() > 115
    mattermost.set(rate_limited=False)
    (early,) = await platform.work()
    assert (early.state, mattermost.posts) == ("pending", []), "the ledger waits as well"
    await platform.hours_pass()
    (outcome,) = await platform.work()
    assert outcome.state == "succeeded"
    assert len(mattermost.posts) == 1


class Crash(BaseException):
    """Stands for SIGKILL: nothing in the process may catch it."""


async def crash_at(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    """Work until the marked function, die before or after it, and let the leases run out."""
    owner, attribute = {
        "collect": (digest_run, "collect"),
        "claim": (ledger, "plan_and_claim"),
        "sending": (ledger, "begin_sending"),
        "post": (digest_run, "post_webhook"),
        "record": (digest_run, "_record"),
        "end": (digest_run, "_ended"),
    }[name]
    original = getattr(owner, attribute)

    async def dies(*args: Any, **named: Any) -> Any:
        if when == "after":
            await original(*args, **named)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(owner, attribute, dies)
        with pytest.raises(Crash):
            await platform.work()
    await platform.hours_pass()


@pytest.mark.parametrize(
    ("name", "when", "final", "entry_state", "posts"),
    [
        ("collect", "after", "succeeded", "posted", 1),
        ("claim", "before", "succeeded", "posted", 1),
        ("claim", "after", "succeeded", "posted", 1),
        ("sending", "before", "succeeded", "posted", 1),
        ("sending", "after", "succeeded", "posted", 1),
        ("post", "before", "unknown", "unknown", 0),
        ("post", "after", "unknown", "unknown", 1),
        ("record", "before", "unknown", "unknown", 1),
        ("record", "after", "unknown", "unknown", 1),
        ("end", "before", "succeeded", "posted", 1),
    ],
)
async def test_dying_at_any_point_never_posts_twice(
    platform: Platform,
    mattermost: RunningMattermost,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    when: str,
    final: str,
    entry_state: str,
    posts: int,
) -> None:
    """Traps 18, 19, T17 and T18. Functions that raise after their work roll it back, as a kill does."""
    installation = await connected(platform, mattermost)
    directive, _ = await platform.run_now(installation.id)
    await crash_at(platform, monkeypatch, name, when)
    for _ in range(3):
        await platform.work()
        await platform.hours_pass()
    assert len(mattermost.posts) == posts
    assert (await platform.directive(directive.id)).state == final
    (entry,) = await platform.ledger()
    assert entry.state == entry_state
    failed = await platform.signals("mattermost.message.failed")
    posted = await platform.signals("mattermost.message.posted")
    assert (len(failed), len(posted)) == ((0, 1) if final == "succeeded" else (1, 0))


async def test_20_executions_of_one_slot_at_once_post_once(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 17."""
    installation = await connected(platform, mattermost)
    directive, _ = await platform.run_now(installation.id)
    async with platform.database.tenant(platform.tenant.schema) as session:
        found = await claim(session, limit=1, owner="t", lease_seconds=60, ids=[directive.id])
        (held,) = found.claimed
    params = DigestParams.model_validate(held.params)

    async def once() -> str:
        try:
            return str(
                (await digest_run.run_digest(await context_of(platform, held), params))[
                    "ledger_state"
                ]
            )
        except DirectiveFailed as error:
            return error.error_kind

    results = await asyncio.gather(*(once() for _ in range(20)))
    assert len(mattermost.posts) == 1
    assert set(results) <= {"posted", "network"}
    assert "posted" in results
    assert len(await platform.signals("mattermost.message.posted")) == 1


async def context_of(platform: Platform, held: ClaimedDirective) -> HandlerContext:
    async with platform.database.tenant(platform.tenant.schema) as session:
        execution = await executions.create(session, RUN)
    return HandlerContext(
        tenant=platform.tenant,
        database=platform.database,
        settings=platform.settings,
        clock=platform.clock,
        directive=replace(held),
        execution=RunningExecution(platform.database, platform.tenant.schema, execution.id),
        vault=platform.vault,
        http=OutboundClient(platform.settings),
    )


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


async def test_a_canary_webhook_is_in_no_table_in_clear(
    platform: Platform,
    mattermost: RunningMattermost,
    owner: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Traps 1, 2 and T25: on the good path and on failing ones, the id is nowhere but sealed."""
    caplog.set_level("DEBUG")
    installation = await connected(platform, mattermost)
    await platform.run_now(installation.id)
    await platform.work()
    for switches in ({"hook_deleted": True}, {"fault": "error_after_save", "hook_deleted": False}):
        mattermost.set(**switches)
        await platform.run_now(installation.id)
        await platform.work()
    canary = mattermost.state.hook_id
    async with owner.platform() as session:
        tables = (
            await session.execute(
                text(
                    "SELECT quote_ident(table_schema) || '.' || quote_ident(table_name)"
                    " FROM information_schema.tables WHERE table_schema IN (:schema, 'fleetprompt')"
                ),
                {"schema": platform.tenant.schema},
            )
        ).scalars()
        for table in list(tables):
            hits = await session.scalar(
                text(f"SELECT count(*) FROM {table} t WHERE t::text LIKE :canary"),
                {"canary": f"%{canary}%"},
            )
            assert hits == 0, table
    assert canary not in caplog.text
    assert len(await platform.ledger()) == 3


async def test_a_slot_runs_with_its_own_window_and_the_next_one_continues_it(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(
        platform, mattermost, timezone="Europe/Berlin", schedule_time="09:00"
    )
    first, second, *_ = await platform.slots()
    assert first.window_end == first.due_at
    assert second.window_start == first.window_end
    for slot in (first, second):
        platform.now = slot.due_at + timedelta(seconds=30)
        ids = await request(platform)
        assert len(ids) == 1
        assert await request(platform) == []
        await platform.work()
        directive = await platform.directive(ids[0])
        assert directive.state == "succeeded"
        assert directive.idempotency_key == (
            f"dir:digest:{platform.tenant.slug}:{installation.id}:{slot.local_date}"
        )
        assert (
            directive.correlation_id == f"digest:{platform.tenant.slug}:{slot.local_date}:default"
        )
    assert len(mattermost.posts) == 2
    assert [slot.state for slot in (await platform.slots())[:3]] == ["done", "done", "planned"]
    keys = [entry.dedupe_key for entry in await platform.ledger()]
    assert keys[0] == f"mattermost_post:{platform.tenant.slug}:{installation.id}:{first.local_date}"
    async with platform.database.tenant(platform.tenant.schema) as session:
        later, earlier = await executions.list_executions(session, kind=RUN)
    assert earlier.result is not None
    assert later.result is not None
    assert earlier.result["window"]["end"] == later.result["window"]["start"]
    assert len(mattermost.requests) == 3, "one check and two posts"


async def request(platform: Platform) -> list[Any]:
    """What the minute's tick does, for this tenant."""
    async with platform.database.platform() as session:
        due = [
            slot
            for slot in await schedule_slots.due(session, platform.clock())
            if slot.tenant_schema == platform.tenant.schema
        ]
    return await request_slots(
        platform.database, platform.tenant, due, platform.clock(), platform.settings
    )


async def test_a_slot_after_downtime_runs_within_grace_and_is_skipped_beyond(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 26."""
    await connected(platform, mattermost)
    first, second, third, *_ = await platform.slots()
    platform.now = third.due_at + timedelta(hours=5)
    assert len(await request(platform)) == 1
    await platform.work()
    states = {slot.local_date: slot.state for slot in await platform.slots()}
    assert [states[slot.local_date] for slot in (first, second, third)] == [
        "skipped_missed",
        "skipped_missed",
        "done",
    ]
    assert len(mattermost.posts) == 1


async def test_editing_the_time_after_todays_digest_posts_no_second_one_today(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Traps 21 and 24: the local date is the key; the next window starts where the last one ended."""
    installation = await connected(platform, mattermost, timezone="UTC", schedule_time="09:00")
    first = (await platform.slots())[0]
    platform.now = first.due_at + timedelta(minutes=1)
    await request(platform)
    await platform.work()
    for time_of_day, zone in (("09:30", "UTC"), ("07:00", "America/Los_Angeles"), ("23:00", "UTC")):
        await platform.configure(installation.id, schedule_time=time_of_day, timezone=zone)
        slots = await platform.slots()
        assert [s.local_date for s in slots if s.local_date == first.local_date] == [
            first.local_date
        ]
        assert slots[0].state == "done"
        assert slots[1].window_start == first.window_end
        assert all(a.window_end == b.window_start for a, b in zip(slots, slots[1:], strict=False))
    platform.now = first.due_at + timedelta(hours=14)
    assert await request(platform) == []
    assert len(mattermost.posts) == 1


async def test_running_by_hand_does_not_use_up_the_slot(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 20."""
    installation = await connected(platform, mattermost)
    slot = (await platform.slots())[0]
    platform.now = slot.due_at + timedelta(seconds=1)
    await platform.run_now(installation.id)
    await request(platform)
    await platform.work()
    assert len(mattermost.posts) == 2
    assert (await platform.slots())[0].state == "done"


async def test_without_a_connection_a_run_says_so(platform: Platform) -> None:
    installation = await platform.install()
    assert await platform.slots() == []
    directive, _ = await platform.run_now(installation.id)
    await platform.work()
    ended = await platform.directive(directive.id)
    assert (ended.state, ended.error_kind) == ("failed", "validation")
    assert "not connected" in (ended.error_message or "")
    async with platform.database.tenant(platform.tenant.schema) as session:
        details = await service.installation_details(session, installation.id)
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
