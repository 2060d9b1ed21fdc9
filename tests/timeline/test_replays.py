"""A replay on the timeline: its own story with all it caused, and in each of those stories its cause."""

from typing import Any

import pytest

from fleetprompt.timeline.schemas import Timeline
from fleetprompt.timeline.service import what_happened
from tests.packages.installed import Platform
from tests.signals.replaying import Replays


@pytest.fixture
async def replays(platform: Platform) -> Replays:
    found = Replays(platform.database, platform.settings, platform.tenant)
    await found.install()
    return found


async def asked(replays: Replays, what: Any) -> Timeline:
    async with replays.database.tenant(replays.tenant.schema) as session:
        return await what_happened(session, str(what))


def titles(timeline: Timeline, kind: str) -> list[str]:
    return [entry.title for entry in timeline.entries if entry.kind == kind]


async def test_a_replays_story_holds_everything_that_came_of_it(replays: Replays) -> None:
    await replays.tell(3)
    done = await replays.replay(live=True)
    for what in (done.id, f"replay:{done.id}", done.correlation_id, done.directive_id):
        timeline = await asked(replays, what)
        assert timeline.correlation_id == done.correlation_id
        assert set(timeline.correlation_ids) == {
            done.correlation_id, "mail:0", "mail:1", "mail:2",
        }  # fmt: skip
        assert titles(timeline, "replay") == [
            "live replay asked for by user:ada",
            "live replay started: 3 signals",
            "live replay completed: 3 signals read, 3 directives requested",
        ]
        assert titles(timeline, "directive") == [
            "signals.replay asked for by user:ada",
            *["test.note asked for by package:mattermost_daily_ops_digest"] * 3,
        ]
    entry = next(one for one in timeline.entries if one.kind == "replay")
    assert entry.links["self"] == f"/api/v1/replays/{done.id}"
    assert entry.links["directive"] == f"/api/v1/directives/{done.directive_id}"


async def test_a_story_shows_the_replay_that_went_into_it_and_not_the_others_it_went_into(
    replays: Replays,
) -> None:
    await replays.tell(3)
    (lone,) = await replays.tell(1, first=3, correlation_id=None)
    done = await replays.replay(live=True)
    timeline = await asked(replays, "mail:1")
    assert set(timeline.correlation_ids) == {"mail:1", done.correlation_id}
    assert len(titles(timeline, "replay")) == 3
    assert len([one for one in titles(timeline, "directive") if "note" in one]) == 1
    # Without a story of its own, the signal's id is one.
    timeline = await asked(replays, lone)
    assert set(timeline.correlation_ids) == {str(lone), done.correlation_id}
    assert len([one for one in titles(timeline, "directive") if "note" in one]) == 1


async def test_a_muted_replay_says_what_it_would_have_requested(replays: Replays) -> None:
    await replays.tell(2)
    done = await replays.replay()
    timeline = await asked(replays, done.id)
    assert timeline.correlation_ids == [done.correlation_id]
    assert titles(timeline, "replay")[-1] == (
        "muted replay completed: 2 signals read, 2 directives would be requested"
    )
    assert titles(timeline, "directive") == ["signals.replay asked for by user:ada"]
