"""Digests as a bot, through a webhook, and through one that a token proves; and settling the unknown."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from mattermostautodriver import TypedDriver
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.errors import ConflictError, ForbiddenError, NotFoundError, RateLimitedError
from fleetprompt.ids import new_id
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages import credentials, runs
from fleetprompt.packages.digest.chart import Bar, draw
from fleetprompt.packages.operations import Resolution, posting_operations_of
from fleetprompt.tenants.service import Tenant
from tests.doubles.mattermost import RunningMattermost
from tests.doubles.mattermost.state import Channel
from tests.packages.installed import ADMIN, MODES, SLUG, Platform, connected_as

PATIENCE = 0.4


@pytest.fixture
def platform(platform: Platform) -> Platform:
    """With little patience, so that an absence is soon certain."""
    settings = platform.settings.model_copy(update={"absence_seconds": PATIENCE})
    return replace(platform, settings=settings)


async def entry_of(platform: Platform) -> OutboundMessage:
    (entry,) = await platform.ledger()
    return entry


async def work_until_settled(platform: Platform, rounds: int = 6) -> None:
    """Work on, with time passing between, until no directive is open."""
    for _ in range(rounds):
        await platform.work()
        await asyncio.sleep(PATIENCE + 0.05)
        await platform.hours_pass()


async def ask_to_settle(
    platform: Platform,
    session: AsyncSession,
    installation_id: UUID,
    resolution: Resolution,
    by: Actor = ADMIN,
) -> Directive:
    operations = posting_operations_of(SLUG)
    assert operations is not None
    message = await entry_of(platform)
    installation = await platform.installation(installation_id)
    return await operations.request_resolution(
        session, platform.tenant, installation, message.id, resolution, by
    )


async def settle(
    platform: Platform, installation_id: UUID, resolution: Resolution, by: Actor = ADMIN
) -> dict[str, Any]:
    """Ask for it and have it done; the directive's result, or its failure."""
    async with platform.database.tenant(platform.tenant.schema) as session:
        directive = await ask_to_settle(platform, session, installation_id, resolution, by)
    await platform.work()
    ended = await platform.directive(directive.id)
    return ended.result or {"state": ended.state, "message": ended.error_message}


@pytest.mark.parametrize("mode", ["bot", "hybrid"])
async def test_a_digest_is_posted_with_its_id_and_a_link_that_others_can_follow(
    platform: Platform, mattermost: RunningMattermost, mode: str
) -> None:
    installation = await connected_as(platform, mattermost, mode)
    _, execution = await platform.run_now(installation.id)
    await platform.work()
    entry = await entry_of(platform)
    (post,) = mattermost.posts
    assert (entry.state, entry.remote_id) == ("posted", post.id)
    assert entry.permalink == f"{mattermost.url}/operations/pl/{post.id}"
    assert entry.proof == ("answer" if mode == "bot" else "read_back")
    done = (await platform.execution(execution.id)).result
    assert done is not None
    assert (done["ledger_state"], done["permalink"]) == ("posted", entry.permalink)
    options = {"scheme": "http", "url": "127.0.0.1", "port": mattermost.port, "max_retries": 0}
    with TypedDriver(options | {"token": mattermost.state.bot_token}) as driver:
        driver.login()
        seen = driver.posts.get_post(entry.remote_id)
    assert seen["message"] == done["text"]
    assert seen["props"]["fleetprompt"] == {"key": f"fleetprompt:{entry.id}"}
    told = [kind for kind, _ in await platform.signals("mattermost.message.")]
    assert told == ["mattermost.message.posted"]
    assert len(await platform.signals("value.digest.posted")) == 1


async def test_a_bots_digest_carries_the_picture_that_its_record_draws_unless_it_is_switched_off(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected_as(platform, mattermost, "bot")
    _, execution = await platform.run_now(installation.id)
    await platform.work()
    mattermost.set(may_upload=False)
    _, without = await platform.run_now(installation.id)
    await platform.work()
    settings = {"mode": "bot", "team": "operations", "channel": "fleet-reports"}
    await platform.configure(installation.id, **settings, attach_trend=False)
    await platform.run_now(installation.id)
    await platform.work()
    assert [len(post.file_ids) for post in mattermost.posts] == [1, 0, 0]
    assert {entry.state for entry in await platform.ledger()} == {"posted"}
    (file,) = mattermost.state.files.values()
    kept = (await platform.execution(execution.id)).result
    assert kept is not None
    assert file.content == draw([Bar.from_json(one) for one in kept["bars"]])
    assert [r.path for r in mattermost.requests].count("/api/v4/files") == 2
    async with platform.database.tenant(platform.tenant.schema) as session:
        logged = await session.execute(
            text(
                "SELECT execution_id, fields ->> 'reason' FROM execution_logs WHERE level = 'warning'"
            )
        )
    ((about, reason),) = logged
    assert about == without.id
    assert "upload_file" in reason


async def test_a_digest_that_is_posted_again_has_its_picture(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 6: what a person or the platform settles is the same message."""
    installation = await connected_as(platform, mattermost, "bot")
    mattermost.set(bot_is_member=False)
    await platform.run_now(installation.id)
    await platform.work()
    assert (await entry_of(platform)).state == "rejected"
    mattermost.set(bot_is_member=True)
    await settle(platform, installation.id, "post_again")
    (post,) = mattermost.posts
    assert len(post.file_ids) == 1


TROUBLES: list[dict[str, Any]] = [
    {"fault": "drop_after_save", "fault_requests": 1},
    {"fault": "reset_after_save", "fault_requests": 1},
    {"fault": "error_after_save", "fault_requests": 1},
    {"fault": "drop_before_save", "fault_requests": 1},
    {"fault": "save_after_drop", "fault_requests": 1, "late_save_seconds": 0.2},
    {
        **{"fault": "drop_after_save", "fault_requests": 1},
        **{"nodes": 2, "replicas": 2, "replica_lag_seconds": 0.3},
    },
]


@pytest.mark.parametrize("mode", ["bot", "hybrid"])
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: f"{t['fault']}-{t.get('nodes', 1)}")
async def test_t7_a_lost_answer_ends_with_one_post_and_its_id(
    platform: Platform, mattermost: RunningMattermost, mode: str, trouble: dict[str, Any]
) -> None:
    """Traps 6 and 7; where it was not saved, it is sent again once its absence is certain."""
    installation = await connected_as(platform, mattermost, mode)
    mattermost.set(**trouble)
    directive, _ = await platform.run_now(installation.id)
    await work_until_settled(platform)
    entry = await entry_of(platform)
    (post,) = mattermost.posts
    assert (entry.state, entry.remote_id) == ("posted", post.id)
    assert (await platform.directive(directive.id)).state == "succeeded"
    assert await platform.signals("mattermost.message.failed") == []
    assert (await platform.installation(installation.id)).state == "connected"


@pytest.mark.parametrize("seconds", [29.0, 31.0, 600.0])
async def test_t7_found_however_late_it_is_looked_for(
    platform: Platform, mattermost: RunningMattermost, seconds: float
) -> None:
    """Trap 7: within and beyond the 30 seconds for which the server knows the key."""
    installation = await connected_as(platform, mattermost, "bot")
    mattermost.set(fault="drop_after_save", fault_requests=1, replica_lag_seconds=3600.0)
    await platform.run_now(installation.id)
    await platform.work()
    assert (await entry_of(platform)).state == "unknown"
    mattermost.set(replica_lag_seconds=0.0, clock_offset_seconds=seconds)
    await platform.hours_pass()
    await platform.work()
    entry = await entry_of(platform)
    assert (entry.state, entry.proof) == ("posted", "read_back")
    assert [post.id for post in mattermost.posts] == [entry.remote_id]


@pytest.mark.parametrize("mode", ["bot", "hybrid"])
async def test_t9_a_post_that_a_person_deleted_is_not_posted_again(
    platform: Platform, mattermost: RunningMattermost, mode: str
) -> None:
    """Trap 9."""
    installation = await connected_as(platform, mattermost, mode)
    mattermost.set(fault="drop_after_save", fault_requests=1, replica_lag_seconds=3600.0)
    await platform.run_now(installation.id)
    await platform.work()
    mattermost.set(replica_lag_seconds=0.0)
    mattermost.state.delete_post(mattermost.posts[0].id)
    await work_until_settled(platform, 3)
    assert (await entry_of(platform)).remote_id == mattermost.posts[0].id
    assert len(mattermost.posts) == 1


async def test_t10_a_look_that_proves_nothing_never_posts_again(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 10: the channel cannot be read any more; it stays unknown, and the platform goes on later."""
    installation = await connected_as(platform, mattermost, "bot")
    mattermost.set(fault="drop_after_save", fault_requests=1)
    original = mattermost.state.lag_of_next_replica

    def unreadable() -> float:
        mattermost.set(bot_may_read=False)
        return original()

    mattermost.state.lag_of_next_replica = unreadable  # type: ignore[method-assign]
    mattermost.set(replica_lag_seconds=3600.0)
    directive, _ = await platform.run_now(installation.id)
    await platform.work()
    for _ in range(6):
        await asyncio.sleep(PATIENCE / 2)
        await platform.hours_pass()
        await platform.work()
    assert len(mattermost.posts) == 1
    assert (await platform.directive(directive.id)).state == "failed"
    ((_, told),) = await platform.signals("mattermost.message.failed")
    assert told["outcome"] == "unknown"
    mattermost.state.lag_of_next_replica = original  # type: ignore[method-assign]
    mattermost.set(bot_may_read=True, replica_lag_seconds=0.0)
    await platform.hours_pass()
    await platform.work()
    assert (await entry_of(platform)).state == "posted"
    assert len(mattermost.posts) == 1
    assert (await platform.installation(installation.id)).state == "connected"


async def test_t7_where_the_last_post_is_not_to_be_seen_absence_proves_nothing(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 7, hybrid: a webhook of another team, whose channel has the name that the token reads."""
    state = mattermost.state
    twin = Channel("fleet-reports", "Fleet Reports", team_id=state.other_team_id)
    state.channels[twin.id] = twin
    state.hooks[state.hook_id] = replace(
        state.hooks[state.hook_id], team_id=twin.team_id, channel_id=twin.id
    )
    installation = await connected_as(platform, mattermost, "hybrid")
    await platform.run_now(installation.id)
    await platform.work()
    mattermost.set(fault="drop_after_save", fault_requests=1)
    await platform.run_now(installation.id)
    await work_until_settled(platform)
    assert [post.channel_id for post in mattermost.posts] == [twin.id, twin.id]
    first, second = await platform.ledger()
    assert (first.state, first.remote_id, second.state) == ("posted", None, "unknown")
    ((_, told),) = await platform.signals("mattermost.message.failed")
    assert told["outcome"] == "unknown"
    assert "another team" in told["error_message"]


async def test_t7_a_last_post_that_nobody_has_looked_for_yet_is_looked_for_first(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 7, hybrid: it says that the token looks in the right place, so that absence counts."""
    installation = await connected_as(platform, mattermost, "hybrid")
    mattermost.set(replica_lag_seconds=3600.0)
    await platform.run_now(installation.id)
    await platform.work()
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE directives SET state = 'cancelled', finished_at = now(), changed_by = 'test'"
                " WHERE type = 'digest.settle'"
            )
        )
    assert (await entry_of(platform)).remote_id is None
    mattermost.set(replica_lag_seconds=0.0, fault="drop_before_save", fault_requests=1)
    await platform.run_now(installation.id)
    await work_until_settled(platform)
    ledger = await platform.ledger()
    assert {entry.remote_id for entry in ledger} == {post.id for post in mattermost.posts}
    assert [entry.state for entry in ledger] == ["posted", "posted"]
    assert len(mattermost.posts) == 2


async def test_a_token_that_works_no_more_does_not_keep_a_hybrid_digest_back(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected_as(platform, mattermost, "hybrid")
    mattermost.set(token_expired=True)
    await platform.run_now(installation.id)
    await platform.work()
    entry = await entry_of(platform)
    assert (entry.state, entry.proof, entry.permalink) == ("posted", "answer", None)
    assert len(mattermost.posts) == 1


async def test_a_token_that_gets_no_answer_does_not_keep_a_hybrid_digest_back_for_good(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """The webhook works all the time; only what the token asks is answered with 500."""
    installation = await connected_as(platform, mattermost, "hybrid")
    mattermost.set(token_in_error=True)
    directive, _ = await platform.run_now(installation.id)
    for _ in range(3):
        await platform.work()
        assert mattermost.posts == []
        await platform.hours_pass()
    await platform.work()
    entry = await entry_of(platform)
    assert (entry.state, entry.remote_place) == ("posted", None)
    assert len(mattermost.posts) == 1
    assert (await platform.directive(directive.id)).state == "succeeded"


async def test_a_hybrid_digest_that_is_not_seen_at_once_gets_its_link_later(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected_as(platform, mattermost, "hybrid")
    mattermost.set(replica_lag_seconds=3600.0)
    await platform.run_now(installation.id)
    await platform.work()
    assert (await entry_of(platform)).permalink is None
    mattermost.set(replica_lag_seconds=0.0)
    await platform.work()
    entry = await entry_of(platform)
    assert (entry.proof, entry.remote_id) == ("read_back", mattermost.posts[0].id)
    assert len(mattermost.posts) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_all_green_is_silent_unless_configured_otherwise(
    platform: Platform, mattermost: RunningMattermost, mode: str
) -> None:
    installation = await connected_as(platform, mattermost, mode)
    await platform.run_now(installation.id)
    await platform.work()
    settings = {"mode": mode, "team": "operations", "channel": "fleet-reports"}
    await platform.configure(installation.id, **settings, silent_when_green=False)
    await platform.run_now(installation.id)
    await platform.work()
    assert [post.silent for post in mattermost.posts] == [True, False]


async def test_a_day_with_failures_notifies_even_where_green_days_are_silent(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected_as(platform, mattermost, "bot")
    await platform.commit_late("agent.execution.failed", platform.clock())
    await asyncio.sleep(0.05)
    await platform.run_now(installation.id)
    await platform.work()
    assert [post.silent for post in mattermost.posts] == [False]


async def test_t20_a_test_post_takes_no_digests_place_and_has_a_limit_of_its_own(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Traps 20 and 32."""
    installation = await connected_as(platform, mattermost, "bot")
    planned = [(slot.local_date, slot.state) for slot in await platform.slots()]

    async def ask() -> object:
        async with platform.database.tenant(platform.tenant.schema) as session:
            return await runs.post_test(
                session, platform.tenant, installation.id, ADMIN, platform.settings
            )

    results = await asyncio.gather(*(ask() for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(one, RateLimitedError) for one in results) == 7
    await platform.work()
    assert len(mattermost.posts) == 3
    assert all("test" in post.message for post in mattermost.posts)
    assert [(slot.local_date, slot.state) for slot in await platform.slots()] == planned
    assert await platform.signals("value.") == []
    for _ in range(3):
        await platform.run_now(installation.id)
    with pytest.raises(RateLimitedError):
        await platform.run_now(installation.id)


async def unknown_webhook_digest(
    platform: Platform, mattermost: RunningMattermost, *, saved: bool
) -> UUID:
    installation = await connected_as(platform, mattermost, "webhook")
    mattermost.set(fault="drop_after_save" if saved else "drop_before_save", fault_requests=1)
    await platform.run_now(installation.id)
    await platform.work()
    assert (await entry_of(platform)).state == "unknown"
    return installation.id


async def test_an_unknown_digest_is_posted_again_at_a_persons_word_and_once(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Trap 6: the way out of it."""
    installation_id = await unknown_webhook_digest(platform, mattermost, saved=False)
    with pytest.raises(ForbiddenError):
        await settle(platform, installation_id, "post_again", Actor("user:v", "viewer"))
    told = await settle(platform, installation_id, "post_again")
    assert told["ledger_state"] == "posted"
    entry = await entry_of(platform)
    assert (entry.state, entry.resolution) == ("posted", "posted_again")
    assert len(mattermost.posts) == 1
    assert (await platform.installation(installation_id)).state == "connected"
    with pytest.raises(ConflictError):
        await settle(platform, installation_id, "post_again")
    assert [kind for kind, _ in await platform.signals("mattermost.message.")] == [
        "mattermost.message.failed",
        "mattermost.message.posted",
    ]


async def test_posting_again_that_is_lost_too_is_not_repeated_by_itself(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation_id = await unknown_webhook_digest(platform, mattermost, saved=True)
    mattermost.set(fault="drop_after_save", fault_requests=1)
    async with platform.database.tenant(platform.tenant.schema) as session:
        asked = await ask_to_settle(platform, session, installation_id, "post_again")
    async with platform.database.tenant(platform.tenant.schema) as session:
        with pytest.raises(ConflictError, match="already"):
            await ask_to_settle(platform, session, installation_id, "post_again")
    await platform.work()
    assert (await platform.directive(asked.id)).state == "unknown"
    await work_until_settled(platform, 2)
    assert len(mattermost.posts) == 2, "the person's word was one more post, and no other"
    assert (await entry_of(platform)).state == "unknown"


async def test_an_unknown_digest_is_given_up_and_cannot_be_looked_for_without_a_token(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation_id = await unknown_webhook_digest(platform, mattermost, saved=True)
    with pytest.raises(ConflictError, match="cannot look"):
        await settle(platform, installation_id, "look")
    told = await settle(platform, installation_id, "give_up")
    assert told["resolution"] == "given_up"
    entry = await entry_of(platform)
    assert (entry.state, entry.resolution) == ("unknown", "given_up")
    ((_, signal),) = await platform.signals("mattermost.message.given_up")
    assert signal["decided_by"] == ADMIN.id
    await work_until_settled(platform, 2)
    assert len(mattermost.posts) == 1


async def test_looking_again_finds_it_and_posts_nothing(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected_as(platform, mattermost, "hybrid")
    mattermost.set(fault="drop_after_save", fault_requests=1, replica_lag_seconds=3600.0)
    await platform.run_now(installation.id)
    await platform.work()
    told = await settle(platform, installation.id, "look")
    assert told.get("found") is False or (await entry_of(platform)).state == "unknown"
    mattermost.set(replica_lag_seconds=0.0)
    await platform.hours_pass()
    told = await settle(platform, installation.id, "look")
    assert (await entry_of(platform)).state == "posted"
    assert len(mattermost.posts) == 1


async def test_a_refused_digest_is_posted_after_reconnecting(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    """Reconnect, then retry: the text and the window are the first attempt's."""
    installation = await connected_as(platform, mattermost, "bot")
    mattermost.set(token_expired=True)
    _, execution = await platform.run_now(installation.id)
    await platform.work()
    assert (await entry_of(platform)).state == "rejected"
    assert (await platform.installation(installation.id)).state == "degraded"
    mattermost.set(token_expired=False)
    await platform.connect(installation.id, mattermost.base_url, mattermost.state.bot_token)
    told = await settle(platform, installation.id, "post_again")
    assert told["ledger_state"] == "posted"
    written = (await platform.execution(execution.id)).result
    assert written is not None
    assert [post.message for post in mattermost.posts] == [written["text"]]


async def test_the_check_looks_at_every_connection_of_the_mode_and_posts_nothing(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected_as(platform, mattermost, "hybrid")

    async def check() -> dict[str, str]:
        found = await credentials.check(
            platform.database, platform.vault, OutboundClient(platform.settings),
            platform.tenant, installation.id, ADMIN,
        )  # fmt: skip
        return {one.kind: one.verification.state for one in found}

    assert await check() == {"mattermost": "connected", "mattermost_token": "connected"}
    mattermost.set(hook_deleted=True)
    assert await check() == {"mattermost": "failing", "mattermost_token": "connected"}
    shown = await platform.installation(installation.id)
    assert (shown.state, "does not know this webhook" in (shown.last_error or "")) == (
        "degraded",
        True,
    )
    mattermost.set(hook_deleted=False, token_expired=True)
    assert await check() == {"mattermost": "connected", "mattermost_token": "failing"}
    mattermost.set(token_expired=False)
    await check()
    assert (await platform.installation(installation.id)).state == "connected"
    assert mattermost.posts == []


async def test_t34_a_token_of_another_tenant_is_not_found(
    platform: Platform,
    mattermost: RunningMattermost,
    new_tenant: Callable[[], Awaitable[Tenant]],
) -> None:
    """Trap 34."""
    other = Platform(platform.database, platform.settings, await new_tenant())
    theirs = await connected_as(other, mattermost, "bot")
    installation = await platform.install()
    with pytest.raises(NotFoundError):
        await platform.configure(
            installation.id, mattermost_token_id=theirs.config["mattermost_token_id"]
        )
    mine = await connected_as(platform, mattermost, "webhook")
    with pytest.raises(NotFoundError):
        await platform.configure(
            installation.id, mattermost_token_id=mine.config["mattermost_credential_id"]
        )
    with pytest.raises(NotFoundError):
        operations = posting_operations_of(SLUG)
        assert operations is not None
        async with platform.database.tenant(platform.tenant.schema) as session:
            await operations.request_resolution(
                session, platform.tenant, mine, new_id(), "give_up", ADMIN
            )


async def test_t1_the_token_is_in_no_table_log_or_result(
    platform: Platform,
    mattermost: RunningMattermost,
    owner: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Traps 1 and 2, on good paths and bad ones."""
    caplog.set_level("DEBUG")
    installation = await connected_as(platform, mattermost, "bot")
    for switches in ({}, {"token_in_error": True}, {"token_in_error": False, "nodes": 2}):
        mattermost.set(**switches)
        await platform.run_now(installation.id)
        await platform.work()
    canary = mattermost.state.bot_token
    async with owner.platform() as session:
        tables = await session.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = :schema"),
            {"schema": platform.tenant.schema},
        )
        for table in list(tables):
            found = await session.scalar(
                text(
                    f'SELECT count(*) FROM "{platform.tenant.schema}"."{table}" t'
                    " WHERE t::text LIKE :canary"
                ),
                {"canary": f"%{canary}%"},
            )
            assert found == 0, table
    assert canary not in caplog.text
