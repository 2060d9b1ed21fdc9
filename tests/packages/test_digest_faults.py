"""What may go wrong between a digest's text and its post: never twice, never silently."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.end_writer import OwnEnd
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext, succeed_later
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.taking import take
from fleetprompt.directives.types import directive_types
from fleetprompt.executions import service as executions
from fleetprompt.executions.running import RunningExecution
from fleetprompt.outbound import ledger
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.transports.mattermost import ways
from fleetprompt.packages.digest import run as digest_run
from fleetprompt.packages.mattermost_daily_ops_digest import run as mattermost_run
from fleetprompt.packages.mattermost_daily_ops_digest.requests import RUN, DigestParams
from fleetprompt.packages.mattermost_daily_ops_digest.run import run_digest
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import Platform, connected


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


async def test_the_next_attempt_has_the_same_text_whatever_came_in_meanwhile(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 42, over attempts."""
    installation = await connected(platform, mattermost)
    mattermost.set(rate_limited=True)
    _, execution = await platform.run_now(installation.id)
    await platform.work()
    written = (await platform.execution(execution.id)).result
    assert written is not None
    await platform.commit_late("shop.order.created", platform.clock() - timedelta(hours=1))
    mattermost.set(rate_limited=False)
    await platform.hours_pass()
    await platform.work()
    (post,) = mattermost.posts
    assert post.original == written["text"]
    assert "shop.order.created" not in post.original
    (entry,) = await platform.ledger()
    assert entry.content_sha256 == written["sha256"]


@pytest.mark.parametrize("state", ["succeeded", "unknown"])
async def test_a_worker_that_dies_after_its_last_attempt_posted_is_no_failed_digest(
    platform: Platform,
    mattermost: RunningMattermost,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    """A post is committed with its attempt's end; also where the end alone is lost, nothing failed."""
    if state == "unknown":
        monkeypatch.setattr(OwnEnd, "__call__", staticmethod(succeed_later))
    installation = await connected(platform, mattermost)
    directive, _ = await platform.run_now(installation.id)
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text("UPDATE directives SET max_attempts = 1, changed_by = 't' WHERE id = :id"),
            {"id": directive.id},
        )
    await crash_at(platform, monkeypatch, "end", "after")
    await platform.work()
    assert (await platform.directive(directive.id)).state == state
    assert len(mattermost.posts) == 1
    assert await platform.signals("mattermost.message.failed") == []
    assert (await platform.installation(installation.id)).state == "connected"


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
        "post": (ways, "post_webhook"),
        "record": (ledger, "settle"),
        "end": (mattermost_run, "send_digest"),
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
        ("end", "after", "succeeded", "posted", 1),
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
        found = await take(
            session, platform.tenant, limit=1, owner="t", lease_seconds=60, ids=[directive.id],
            types=directive_types(),
        )  # fmt: skip
        (held,) = found.claimed
    params = DigestParams.model_validate(held.params)

    async def once() -> str:
        try:
            return str((await run_digest(await context_of(platform, held), params))["ledger_state"])
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
