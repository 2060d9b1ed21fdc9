"""What happened: complete, in order, followed both ways, bounded, and of one tenant alone."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from fleetprompt.directives.models import Directive
from fleetprompt.errors import NotFoundError
from fleetprompt.executions import service as executions
from fleetprompt.ids import new_id
from fleetprompt.outbound import ledger
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.timeline.schemas import Timeline
from fleetprompt.timeline.service import DEPTH, MOST_CHAINS, what_happened
from tests.doubles.mattermost import RunningMattermost
from tests.packages.installed import Platform, connected

START = datetime(2026, 3, 8, 9, 0, tzinfo=UTC)
RANKS = ["signal", "directive", "transition", "approval", "execution", "log", "message", "run"]


async def asked(platform: Platform, what: str, **rest: Any) -> Timeline:
    async with platform.database.tenant(platform.tenant.schema) as session:
        return await what_happened(session, what, **rest)


async def told(platform: Platform, minute: int = 0, **rest: Any) -> UUID:
    async with platform.database.tenant(platform.tenant.schema) as session:
        at = START + timedelta(minutes=minute)
        return await emit(session, NewSignal(**{"type": "test.told", "occurred_at": at, **rest}))


async def directed(platform: Platform, **rest: Any) -> UUID:
    async with platform.database.tenant(platform.tenant.schema) as session:
        directive = Directive(
            id=new_id(), type="test.act", params={}, idempotency_key=str(new_id()),
            state="pending", actor="user:ada", changed_by="user:ada", **rest,
        )  # fmt: skip
        session.add(directive)
        await session.flush()
        return directive.id


def ids(timeline: Timeline, kind: str) -> list[str]:
    return [entry.id for entry in timeline.entries if entry.kind == kind]


async def test_a_digest_that_ran_is_told_completely_and_in_order(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(platform, mattermost)
    directive, execution = await platform.run_now(installation.id)
    await platform.work()
    assert len(mattermost.posts) == 1
    assert directive.correlation_id is not None
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text("UPDATE executions SET dagster_run_id = 'run-1' WHERE id = :id"),
            {"id": execution.id},
        )
        stored: dict[str, set[str]] = {}
        for kind, query in {
            "signal": "SELECT id FROM signals WHERE correlation_id = :c",
            "directive": "SELECT id FROM directives WHERE correlation_id = :c",
            "transition": "SELECT id FROM directive_transitions WHERE directive_id = :d",
            "execution": "SELECT id FROM executions WHERE correlation_id = :c",
            "log": "SELECT id FROM execution_logs WHERE execution_id = :e",
            "message": "SELECT id FROM outbound_messages WHERE correlation_id = :c",
        }.items():
            known = {"c": directive.correlation_id, "d": directive.id, "e": execution.id}
            used = {name: value for name, value in known.items() if f":{name}" in query}
            stored[kind] = {str(one) for one in await session.scalars(text(query), used)}
    assert all(stored.values()), stored
    timeline = await asked(platform, directive.correlation_id, dagster_url="http://runs.test")
    assert timeline.correlation_id == directive.correlation_id
    assert timeline.correlation_ids == [directive.correlation_id]
    assert timeline.more.model_dump() == {"entries": 0, "correlation_ids": 0, "exact": True}
    for kind, expected in stored.items():
        assert set(ids(timeline, kind)) == expected, kind
    (run,) = (entry for entry in timeline.entries if entry.kind == "run")
    assert (run.id, run.links) == ("run-1", {"run": "http://runs.test/runs/run-1"})
    places = [(entry.at, RANKS.index(entry.kind)) for entry in timeline.entries]
    assert places == sorted(places)
    titles = [entry.title for entry in timeline.entries if entry.kind == "transition"]
    assert [title.partition(" by ")[0] for title in titles] == [
        "digest.run: new → requested",
        "digest.run: requested → pending",
        "digest.run: pending → running",
        "digest.run: running → succeeded",
    ]
    moments = [e.title.rpartition(" ")[2] for e in timeline.entries if e.kind == "message"]
    assert moments == ["planned", "sending", "posted"]
    ends = [e.title for e in timeline.entries if e.kind == "execution"]
    assert [title.rpartition(" ")[2] for title in ends] == ["requested", "started", "completed"]
    assert timeline == await asked(
        platform, directive.correlation_id, dagster_url="http://runs.test"
    )


async def test_an_id_of_anything_finds_its_correlation(
    platform: Platform, mattermost: RunningMattermost
) -> None:
    installation = await connected(platform, mattermost)
    directive, execution = await platform.run_now(installation.id)
    await platform.work()
    assert directive.correlation_id is not None
    whole = await asked(platform, directive.correlation_id)
    for text_ in (
        str(directive.id), str(execution.id), ids(whole, "signal")[0],
        f"directive:{directive.id}", f"execution:{execution.id}", str(directive.id).upper(),
    ):  # fmt: skip
        found = await asked(platform, text_)
        assert found.correlation_id == directive.correlation_id, text_
        assert found.entries == whole.entries, text_


async def test_causation_is_followed_both_ways_across_correlation_ids(platform: Platform) -> None:
    cause = await told(platform, 0, correlation_id="mail:1")
    middle = await directed(platform, correlation_id="support:1", causation_id=str(cause))
    await told(platform, 2, correlation_id="reply:1", causation_id=f"directive:{middle}")
    await told(platform, 3, correlation_id="elsewhere:1")
    for start in ("mail:1", "support:1", "reply:1", str(middle)):
        timeline = await asked(platform, start)
        assert set(timeline.correlation_ids) == {"mail:1", "support:1", "reply:1"}, start
        assert str(cause) in ids(timeline, "signal")
        assert ids(timeline, "directive") == [str(middle)]
    assert (await asked(platform, "elsewhere:1")).correlation_ids == ["elsewhere:1"]


async def test_what_has_no_correlation_id_is_followed_by_its_own(platform: Platform) -> None:
    cause = await told(platform, 0)
    middle = await directed(platform, causation_id=f"signal:{cause}")
    async with platform.database.tenant(platform.tenant.schema) as session:
        run = await executions.create(session, "test.act", directive_id=middle)
        await executions.log(session, run.id, "info", "at work")
        intent = ledger.Intent(
            dedupe_key="lone:1",
            provider="mattermost",
            destination="#ops",
            content_sha256="0" * 64,
            directive_id=middle,
            execution_id=run.id,
        )
        await ledger.plan_and_claim(session, intent)
    last = await told(platform, 1, causation_id=f"execution:{run.id}", correlation_id="last:1")
    timeline = await asked(platform, str(middle))
    assert timeline.correlation_id is None
    assert timeline.correlation_ids == ["last:1"]
    assert {str(cause), str(last)} <= set(ids(timeline, "signal"))
    assert set(ids(timeline, "execution")) == {str(run.id)}
    assert [entry.title for entry in timeline.entries if entry.kind == "log"] == ["at work"]
    titles = [entry.title for entry in timeline.entries if entry.kind == "message"]
    assert titles == ["mattermost to #ops: planned"]


async def test_a_ring_of_causes_ends(platform: Platform) -> None:
    first = await told(platform, 0, correlation_id="ring:a", causation_id="directive:none")
    second = await told(platform, 1, correlation_id="ring:b", causation_id=str(first))
    async with platform.database.tenant(platform.tenant.schema) as session:
        await session.execute(
            text(
                "UPDATE signals SET metadata = metadata || jsonb_build_object('causation_id',"
                " CAST(:second AS text)) WHERE id = :first"
            ),
            {"first": first, "second": str(second)},
        )
    timeline = await asked(platform, "ring:a")
    assert ids(timeline, "signal") == [str(first), str(second)]


async def test_entries_beyond_the_limit_are_counted_and_the_earliest_are_shown(
    platform: Platform,
) -> None:
    made = [str(await told(platform, minute, correlation_id="long:1")) for minute in range(12)]
    timeline = await asked(platform, "long:1", limit=5)
    assert ids(timeline, "signal") == made[:5]
    assert timeline.more.model_dump() == {"entries": 7, "correlation_ids": 0, "exact": True}


async def test_a_great_fan_of_consequences_is_bounded_and_counted(platform: Platform) -> None:
    cause = await told(platform, 0, correlation_id="root:1")
    for number in range(MOST_CHAINS + 10):
        await told(platform, 1, correlation_id=f"fan:{number:03}", causation_id=str(cause))
    timeline = await asked(platform, "root:1")
    assert len(timeline.correlation_ids) == MOST_CHAINS
    assert timeline.more.correlation_ids == 11
    assert timeline.more.entries == 0


async def test_a_long_line_of_causes_is_followed_so_far_and_no_farther(platform: Platform) -> None:
    cause: UUID | None = None
    for number in range(DEPTH + 3):
        cause = await told(
            platform, number, correlation_id=f"line:{number}",
            causation_id=str(cause) if cause else None,
        )  # fmt: skip
    timeline = await asked(platform, "line:0")
    assert timeline.correlation_ids == [f"line:{number}" for number in range(DEPTH + 1)]
    assert timeline.more.correlation_ids == 1


async def test_large_data_is_left_to_the_signals_own_page(platform: Platform) -> None:
    small = await told(platform, 0, correlation_id="size:1", data={"n": 1})
    large = await told(platform, 1, correlation_id="size:1", data={"n": "x" * 3000})
    first, second = (await asked(platform, "size:1")).entries
    assert first.detail["data"] == {"n": 1}
    assert first.links == {"self": f"/api/v1/signals/{small}"}
    assert second.links == {"self": f"/api/v1/signals/{large}"}
    assert "data" not in second.detail
    assert second.detail["data_left_out"] is True


async def test_another_tenants_rows_are_never_told(platform: Platform, new_tenant: Any) -> None:
    other = Platform(platform.database, platform.settings, await new_tenant())
    theirs = await told(other, 0, correlation_id="shared:1")
    their_directive = await directed(other, correlation_id="shared:2", causation_id=str(theirs))
    for what in ("shared:1", str(theirs), str(their_directive), "signal:" + str(theirs)):
        with pytest.raises(NotFoundError) as caught:
            await asked(platform, what)
        assert what not in caught.value.detail
    own = await told(platform, 0, correlation_id="shared:1", causation_id=str(their_directive))
    timeline = await asked(platform, "shared:1")
    assert ids(timeline, "signal") == [str(own)]
    assert timeline.correlation_ids == ["shared:1"]


@pytest.mark.parametrize("what", ["a:b/c d", "ü:1", "'; DROP TABLE signals; --", "%", "x" * 512])
async def test_a_correlation_id_is_any_text(platform: Platform, what: str) -> None:
    if len(what) <= 256:
        await told(platform, 0, correlation_id=what)
        assert (await asked(platform, what)).correlation_ids == [what]
    with pytest.raises(NotFoundError):
        await asked(platform, what + "x")
