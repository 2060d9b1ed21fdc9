"""Replay: tells muted, requests live, once and never twice, whatever stops it or runs beside it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.db.urls import application_url
from fleetprompt.directives.actors import Actor, Role
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.approvals.checks import Decider
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.runner import DirectiveRunner
from fleetprompt.directives.taking import take
from fleetprompt.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    StaleLeaseError,
)
from fleetprompt.executions.running import RunningExecution
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.settings import Settings
from fleetprompt.signals.envelope import Producer, read_one
from fleetprompt.signals.handlers import DirectiveRequest, SignalView
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.signals.replays import service
from fleetprompt.signals.replays.handlers import ReplayWork
from fleetprompt.signals.replays.selection import Selection
from fleetprompt.signals.replays.service import ReplayParams
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant
from fleetprompt.vault.master_key import load_master_key
from fleetprompt.vault.service import Vault
from tests.doubles.mattermost import running_mattermost
from tests.packages.installed import Platform, connected
from tests.signals.replaying import EVERYTHING, OWNER, START, TYPE, Replays, counts, note

NewTenant = Callable[[], Awaitable[Tenant]]


@pytest.fixture
async def replays(database: Database, settings: Settings, tenant: Tenant) -> Replays:
    """A tenant's replays, its package installed."""
    found = Replays(database, settings, tenant)
    await found.install()
    return found


async def test_muted_tells_what_would_be_requested_and_inserts_nothing(replays: Replays) -> None:
    signals = await replays.tell(3)
    before = await replays.rows("SELECT id FROM directives")
    for _ in range(2):
        done = await replays.replay()
        assert done.state == "completed"
        assert counts(done) == {"signals_read": 3, "would_request": 3}
        found = await replays.findings(done)
        assert [one.signal_id for one in found] == signals
        assert [(one.outcome, one.directive_type, one.params) for one in found] == [
            ("would_request", "test.note", {"number": number}) for number in range(3)
        ]
        assert not any(one.directive_id for one in found)
    assert await replays.notes() == []
    after = await replays.rows("SELECT id, type FROM directives")
    assert {row.type for row in after} == {"signals.replay"}
    assert len(after) == len(before) + 2
    assert replays.noted == []


async def test_live_requests_what_is_new_once_with_new_causation_and_the_old_story(
    replays: Replays,
) -> None:
    await replays.tell(3)
    (own,) = await replays.tell(1, first=3, correlation_id=None)
    first = await replays.replay(live=True)
    assert counts(first) == {"signals_read": 4, "requested": 4}
    made = await replays.notes()
    assert [one.causation_id for one in made] == [str(first.id)] * 4
    assert [one.correlation_id for one in made] == ["mail:0", "mail:1", "mail:2", str(own)]
    assert {one.actor for one in made} == {"package:mattermost_daily_ops_digest"}
    assert {one.directive_id for one in await replays.findings(first)} == {one.id for one in made}
    again = await replays.replay(live=True)
    assert counts(again) == {"signals_read": 4, "duplicates": 4}
    muted = await replays.replay()
    assert counts(muted) == {"signals_read": 4, "duplicates": 4}
    assert sorted(replays.noted) == [0, 1, 2, 3]
    assert len(await replays.notes()) == 4
    async with replays.database.tenant(replays.tenant.schema) as session:
        listed = await service.list_replays(session)
    assert [one.id for one in listed] == [muted.id, again.id, first.id]


async def test_what_ingest_requested_is_a_duplicate(replays: Replays) -> None:
    writer = SignalWriter(application_url(replays.settings), replays.settings, replays.table())
    await writer.start()
    try:
        await writer.submit(replays.tenant.schema, [accepted(number) for number in range(5)])
    finally:
        await writer.close()
    await replays.work()
    done = await replays.replay(live=True)
    assert counts(done) == {"signals_read": 5, "duplicates": 5}
    assert sorted(replays.noted) == [0, 1, 2, 3, 4]


def accepted(number: int) -> Any:
    body = {
        "type": TYPE, "source": "edge:mail", "occurred_at": START.isoformat(),
        "data": {"number": number}, "dedupe_key": f"mail:{number}",
    }  # fmt: skip
    return read_one(json.dumps(body).encode(), Producer())


async def test_beside_ingest_and_a_second_replay_of_the_same_range_nothing_is_asked_twice(
    replays: Replays,
) -> None:
    """The handlers ask for the same keys at the same time from three sides."""
    replays.work_ = ReplayWork(batch=20)
    await replays.tell(150, data={"number": 7})
    await replays.tell(150, first=50)
    first, second = await replays.ask(live=True), await replays.ask(live=True)
    muted = await replays.ask()
    writer = SignalWriter(application_url(replays.settings), replays.settings, replays.table())
    await writer.start()

    async def ingest() -> None:
        for number in range(100, 250):
            await writer.submit(replays.tenant.schema, [accepted(number)])

    try:
        await asyncio.gather(ingest(), replays.work("one"), replays.work("two"))
    finally:
        await writer.close()
    await replays.work()
    ended = [await replays.get(one.id) for one in (first, second, muted)]
    assert [(one.state, one.signals_read) for one in ended] == [("completed", 300)] * 3
    keys = [one.idempotency_key for one in await replays.notes()]
    wanted = {7, *range(50, 250)}
    assert sorted(keys) == sorted(f"note:{number}" for number in wanted)
    assert sorted(replays.noted) == sorted(wanted)
    for one in ended:
        assert one.requested + one.would_request + one.duplicates == 300, counts(one)
        assert one.refused == one.handlers_failed == 0
    by_replay = await replays.rows(
        "SELECT causation_id, count(*) AS number FROM directives WHERE type = 'test.note'"
        " GROUP BY 1"
    )
    told = {row.causation_id: row.number for row in by_replay}
    assert [told.get(str(one.id), 0) for one in ended] == [one.requested for one in ended]


@pytest.mark.parametrize("live", [False, True])
async def test_a_worker_that_stops_midway_loses_nothing_and_repeats_nothing(
    replays: Replays, live: bool
) -> None:
    replays.work_ = ReplayWork(batch=5)
    await replays.tell(200)
    asked = await replays.ask(live=live)
    stopped = []
    for aim in (5, 60, 120):
        async with DirectiveRunner(
            replays.database, replays.settings, owner=f"to {aim}", types=replays.types()
        ) as runner:
            work = asyncio.create_task(runner.work(replays.tenant, [asked.directive_id]))
            await replays.until_read(asked.id, aim)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        found = await replays.get(asked.id)
        stopped.append(found.signals_read)
        assert found.state == "running"
        await replays.leases_end()
    assert stopped[0] < stopped[1] < stopped[2] < 200
    await replays.work()
    done = await replays.get(asked.id)
    assert done.state == "completed"
    made = {"requested": 200} if live else {"would_request": 200}
    assert counts(done) == {"signals_read": 200, **made}
    assert len(await replays.notes()) == (200 if live else 0)
    assert sorted(replays.noted) == (list(range(200)) if live else [])


async def test_a_long_replay_goes_on_in_directives_of_its_own(replays: Replays) -> None:
    replays.work_ = ReplayWork(batch=10, part_seconds=0)
    await replays.tell(35)
    done = await replays.replay(live=True)
    assert counts(done) == {"signals_read": 35, "requested": 35}
    assert (done.state, done.part) == ("completed", 4)
    parts = await replays.rows(
        "SELECT type, state, causation_id, correlation_id, actor FROM directives"
        " WHERE starts_with(type, 'signals.') ORDER BY id"
    )
    assert [one.type for one in parts] == ["signals.replay", *["signals.replay.continue"] * 3]
    assert {(one.state, one.causation_id, one.correlation_id) for one in parts} == {
        ("succeeded", str(done.id), done.correlation_id)
    }
    lines = await replays.rows("SELECT message, fields FROM execution_logs ORDER BY id")
    told = [one.fields["signals_read"] for one in lines if "replay_id" in one.fields]
    assert told == [10, 20, 30, 35]


async def test_a_failing_handler_stops_nothing_and_is_told_without_what_it_saw(
    replays: Replays,
) -> None:
    def poison(signal: SignalView) -> list[DirectiveRequest]:
        if signal.data["number"] % 2:
            raise RuntimeError(f"cannot do {signal.data['word']}")
        return None  # type: ignore[return-value]

    replays.handlers = {TYPE: note, "mail.*": poison}
    await replays.tell(1, data={"number": 0, "word": "confidential"})
    await replays.tell(1, data={"number": 1, "word": "confidential"})
    done = await replays.replay(live=True)
    assert done.state == "completed"
    assert counts(done) == {"signals_read": 2, "requested": 2, "handlers_failed": 2}
    faults = await replays.findings(done, "handler_failed")
    assert [str(one.detail).partition(",")[0] for one in faults] == [
        "TypeError in _answer",
        "RuntimeError in poison",
    ]
    assert "confidential" not in str([one.detail for one in faults])
    assert "2 failures of handlers" in service.outcome_of(done)


async def test_of_endless_faults_a_hundred_are_kept_and_all_are_counted(replays: Replays) -> None:
    def poison(signal: SignalView) -> list[DirectiveRequest]:
        raise RuntimeError

    replays.work_ = ReplayWork(batch=40)
    replays.handlers = {TYPE: poison}
    await replays.tell(130)
    done = await replays.replay()
    assert counts(done) == {"signals_read": 130, "handlers_failed": 130}
    assert len(await replays.findings(done)) == 100


BAD = {
    "unknown type": DirectiveRequest("test.nothing", {}, "a"),
    "params": DirectiveRequest("test.note", {"number": "x"}, "b"),
    "no params": DirectiveRequest("test.note", None, "c"),  # type: ignore[arg-type]
    "no key": DirectiveRequest("test.note", {"number": 1}, ""),
    "long key": DirectiveRequest("test.note", {"number": 1}, "x" * 513),
    "nul": DirectiveRequest("test.note", {"number": 1}, "d\x00"),
    "surrogate": DirectiveRequest("test.note", {"number": 1}, "\ud800"),
    "number for a key": DirectiveRequest("test.note", {"number": 1}, 5),  # type: ignore[arg-type]
    "list for a type": DirectiveRequest([], {"number": 1}, "e"),  # type: ignore[arg-type]
    "target": DirectiveRequest("test.note", {"number": 1}, "f", target="laptop"),
    "attempts": DirectiveRequest("test.note", {"number": 1}, "g", max_attempts=0),
    "taken key": DirectiveRequest("test.note", {"number": 2}, "note:0"),
    "secret": DirectiveRequest(
        "package.configure", {"installation_id": str(UUID(int=1)), "config": {"password": "hunter2"}}, "h"
    ),
}  # fmt: skip


@pytest.mark.parametrize("live", [False, True])
async def test_what_cannot_be_a_directive_is_refused_and_told_and_the_rest_goes_on(
    replays: Replays, live: bool
) -> None:
    await replays.tell(1)
    await replays.replay(live=True)
    replays.handlers = {TYPE: note, "mail.*": lambda signal: [BAD[signal.data["bad"]]]}
    for number, what in enumerate(BAD, 1):
        await replays.tell(1, first=number, data={"number": number, "bad": what})
    done = await replays.replay(Selection(occurred_from=START + timedelta(minutes=1)), live=live)
    assert done.state == "completed"
    made = "requested" if live else "would_request"
    assert counts(done) == {"signals_read": len(BAD), made: len(BAD), "refused": len(BAD)}
    refused = await replays.findings(done, "refused")
    assert len({one.signal_id for one in refused}) == len(BAD)
    assert all(one.detail for one in refused)
    assert "hunter2" not in str([one.detail for one in refused])


@pytest.mark.parametrize("live", [False, True])
async def test_one_key_of_many_signals_counts_once_muted_as_live(
    replays: Replays, live: bool
) -> None:
    replays.work_ = ReplayWork(batch=3)
    await replays.tell(10, data={"number": 4})
    replays.handlers = {
        TYPE: note,
        "mail.*": lambda signal: [
            DirectiveRequest("test.note", {"number": signal.occurred_at.minute}, "note:same")
        ],
    }
    done = await replays.replay(live=live)
    made = "requested" if live else "would_request"
    assert counts(done) == {"signals_read": 10, made: 2, "duplicates": 9, "refused": 9}


async def test_a_replay_reads_neither_its_own_consequences_nor_what_comes_after(
    replays: Replays,
) -> None:
    replays.handlers = {TYPE: note, "directive.*": note}
    await replays.tell(2)
    asked = await replays.ask(live=True)
    await replays.tell(3, first=2)
    await replays.work()
    assert counts(await replays.get(asked.id)) == {"signals_read": 2, "requested": 2}


async def test_what_is_selected(replays: Replays) -> None:
    await replays.tell(4)
    await replays.tell(1, first=4, type="mail.sent", source="edge:other")
    await replays.tell(1, first=5, type="mails.counted", subject_type="box", subject_id="in")
    await replays.tell(1, first=6, source="platform")
    middle = await replays.rows("SELECT clock_timestamp() AS now")
    await replays.tell(1, first=7)
    replays.handlers = {"mail.*": note, "mails.counted": note}

    async def numbers(**wanted: Any) -> list[int]:
        selection = Selection(**{"occurred_from": START - timedelta(days=1), **wanted})
        done = await replays.replay(selection)
        assert done.signals_selected == done.signals_read == done.would_request
        return [one.params["number"] for one in await replays.findings(done) if one.params]

    assert await numbers() == [0, 1, 2, 3, 4, 5, 7]
    assert await numbers(types=["mail.received"]) == [0, 1, 2, 3, 7]
    assert await numbers(types=["mail.*"]) == [0, 1, 2, 3, 4, 7]
    assert await numbers(types=["mail.sent", "mails.counted"]) == [4, 5]
    assert await numbers(sources=["edge:other"]) == [4]
    assert await numbers(subject_type="box", subject_id="in") == [5]
    assert await numbers(correlation_id="mail:3") == [3]
    assert await numbers(
        occurred_from=START + timedelta(minutes=1), occurred_before=START + timedelta(minutes=3)
    ) == [1, 2]
    assert await numbers(occurred_from=None, inserted_from=middle[0].now) == [7]
    assert await numbers(inserted_before=middle[0].now, types=["mail.*"]) == [0, 1, 2, 3, 4]
    assert await numbers(package="mattermost_daily_ops_digest", types=["mail.sent"]) == [4]


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({}, "/occurred_from"),
        ({"occurred_before": START}, "/occurred_from"),
        ({"occurred_from": START, "occurred_before": START}, "/occurred_before"),
        ({"inserted_from": START, "inserted_before": START}, "/inserted_before"),
        ({"occurred_from": START, "types": ["a.b", "directive.*"]}, "/types/1"),
        ({"occurred_from": START, "types": ["package.install.requested"]}, "/types/0"),
        ({"occurred_from": START, "sources": ["platform"]}, "/sources/0"),
        ({"occurred_from": START, "package": "nobody"}, "/package"),
    ],
)
async def test_what_cannot_be_meant_is_pointed_at(
    replays: Replays, wanted: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        await replays.ask(Selection(**wanted))
    assert caught.value.errors[0]["pointer"] == pointer
    assert await replays.rows("SELECT FROM replays") == []


async def test_what_touches_nothing_says_so(replays: Replays) -> None:
    await replays.tell(2)
    none = await replays.replay(Selection(occurred_from=START + timedelta(days=1)))
    assert (none.state, counts(none)) == ("completed", {})
    assert service.outcome_of(none).startswith("No signal that is stored fits")
    await replays.rows("UPDATE installations SET state = 'disabled' RETURNING id")
    unasked = await replays.replay(live=True)
    assert (unasked.signals_selected, counts(unasked)) == (2, {})
    assert "no installed package has a handler" in service.outcome_of(unasked)
    assert await replays.notes() == []


async def test_only_owners_may_ask(replays: Replays) -> None:
    roles: tuple[Role, ...] = ("admin", "member", "viewer", "connector")
    for role in roles:
        with pytest.raises(ForbiddenError):
            await replays.ask(actor=Actor("user:bob", role))


async def test_tenants_are_apart(replays: Replays, new_tenant: NewTenant) -> None:
    other = Replays(replays.database, replays.settings, await new_tenant())
    await other.install()
    await other.tell(3)
    await replays.tell(2)
    done = await replays.replay(live=True)
    assert counts(done) == {"signals_read": 2, "requested": 2}
    assert await other.notes() == []
    with pytest.raises(NotFoundError):
        await other.get(done.id)


async def test_a_cancelled_replay_stops_keeps_what_it_did_and_stays_cancelled(
    replays: Replays,
) -> None:
    replays.work_ = ReplayWork(batch=5)
    await replays.tell(80)
    asked = await replays.ask(live=True)
    work = asyncio.create_task(replays.work())
    await replays.until_read(asked.id, 10)

    async def cancel() -> Any:
        async with replays.database.tenant(replays.tenant.schema) as session:
            return await service.cancel_replay(session, replays.tenant, asked.id, OWNER)

    stopped = await cancel()
    async with asyncio.timeout(30):
        await work
    assert stopped.state == (await cancel()).state == "cancelled"
    assert stopped.error_message == "cancelled by user:ada"
    found = await replays.get(asked.id)
    assert found.signals_read == stopped.signals_read < 80
    assert len(await replays.notes()) == found.requested == found.signals_read
    done = await replays.replay(live=True)
    assert done.duplicates == found.requested
    assert sorted(replays.noted) == list(range(80))
    with pytest.raises(ConflictError):
        async with replays.database.tenant(replays.tenant.schema) as session:
            await service.cancel_replay(session, replays.tenant, done.id, OWNER)


async def test_a_replay_that_waits_can_be_cancelled_by_owners_alone(replays: Replays) -> None:
    await replays.tell(2)
    asked = await replays.ask(live=True)
    async with replays.database.tenant(replays.tenant.schema) as session:
        with pytest.raises(ForbiddenError):
            await service.cancel_replay(
                session, replays.tenant, asked.id, Actor("user:bob", "admin")
            )
        await service.cancel_replay(session, replays.tenant, asked.id, OWNER)
    await replays.work()
    assert counts(await replays.get(asked.id)) == {}
    assert await replays.notes() == []


async def test_a_later_part_can_be_cancelled_too(replays: Replays) -> None:
    replays.work_ = ReplayWork(batch=1, part_seconds=0)
    await replays.tell(5)
    asked = await replays.ask()
    async with DirectiveRunner(
        replays.database, replays.settings, owner="first", types=replays.types()
    ) as runner:
        await runner.work(replays.tenant, [asked.directive_id])
    async with replays.database.tenant(replays.tenant.schema) as session:
        stopped = await service.cancel_replay(session, replays.tenant, asked.id, OWNER)
    await replays.work()
    assert (stopped.state, stopped.part) == ("cancelled", 2)
    assert counts(await replays.get(asked.id)) == {"signals_read": 1, "would_request": 1}
    parts = await replays.rows(
        "SELECT state FROM directives WHERE starts_with(type, 'signals.') ORDER BY id"
    )
    assert [one.state for one in parts] == ["succeeded", "cancelled"]


async def test_a_replay_whose_directive_fails_for_good_says_so(replays: Replays) -> None:
    await replays.tell(1)
    asked = await replays.ask()
    broken = replace(replays.work_, batch=-1)
    replays.work_ = broken
    await replays.work()
    found = await replays.get(asked.id)
    assert (found.state, found.error_kind) == ("failed", "unknown")
    assert found.error_message


async def waits_for_people(replays: Replays, *kinds: str) -> None:
    """The tenant's own terms: an owner or an admin must agree."""
    types = replays.types()
    async with replays.database.tenant(replays.tenant.schema) as session:
        for kind in kinds:
            await change_terms(
                session, types[kind], required=True, policy=ApprovalPolicy(), by=OWNER
            )


async def an_owner(replays: Replays) -> Decider:
    async with replays.database.platform() as session:
        email = f"bob@{replays.tenant.slug}.example.org"
        person = await add_member(session, replays.tenant, email=email, role="owner")
    return Decider(Actor(f"user:{person.user_id}", "owner"), person.user_id)


async def test_a_replay_that_needs_approval_waits_and_runs_as_it_was_edited_and_approved(
    replays: Replays,
) -> None:
    replays.work_ = ReplayWork(batch=1, part_seconds=0)
    await replays.tell(4)
    await waits_for_people(replays, "signals.replay")
    asked = await replays.ask(live=True)
    await replays.work()
    assert (await replays.get(asked.id)).state == "requested"
    narrow = Selection(occurred_from=START + timedelta(minutes=2)).as_json()
    bob = await an_owner(replays)
    async with replays.database.tenant(replays.tenant.schema) as session:
        (shown,) = await approvals.list_approvals(session, directive_id=asked.directive_id)
        assert json.loads(shown.action)["params"]["live"] is True
        edited = {"replay_id": str(asked.id), "selection": narrow, "live": True}
        renewed = await approvals.edit(session, shown.id, edited, bob)
    async with replays.database.tenant(replays.tenant.schema) as session:
        await approvals.approve(session, renewed.id, renewed.action_sha256, bob)
    await replays.work()
    done = await replays.get(asked.id)
    # Asked once, for all of its parts.
    assert (done.state, done.part, done.selection) == ("completed", 3, narrow)
    assert counts(done) == {"signals_read": 2, "requested": 2}
    assert sorted(replays.noted) == [2, 3]


async def test_a_replay_that_people_reject_is_cancelled(replays: Replays) -> None:
    await waits_for_people(replays, "signals.replay")
    asked = await replays.ask(live=True)
    bob = await an_owner(replays)
    async with replays.database.tenant(replays.tenant.schema) as session:
        (shown,) = await approvals.list_approvals(session, directive_id=asked.directive_id)
        await approvals.reject(
            session, replays.tenant, shown.id, shown.action_sha256, "not tonight", bob
        )
    assert (await replays.get(asked.id)).state == "cancelled"


async def test_what_needs_approval_waits_for_it_in_a_replay_too(replays: Replays) -> None:
    await replays.tell(2)
    await waits_for_people(replays, "test.note")
    done = await replays.replay(live=True)
    assert counts(done) == {"signals_read": 2, "requested": 2}
    assert {one.state for one in await replays.notes()} == {"awaiting_approval"}
    assert replays.noted == []


async def test_an_attempt_that_lost_its_lease_changes_nothing_more(replays: Replays) -> None:
    await replays.tell(3)
    asked = await replays.ask(live=True)
    types = replays.types()
    taken = []
    for owner in ("slow", "next"):
        await replays.leases_end()
        async with replays.database.tenant(replays.tenant.schema) as session:
            taken.append(
                await take(
                    session, replays.tenant, limit=1, owner=owner, lease_seconds=45,
                    ids=[asked.directive_id], types=types,
                )
            )  # fmt: skip
    (lost,) = taken[0].claimed
    context = HandlerContext(
        tenant=replays.tenant,
        database=replays.database,
        settings=replays.settings,
        clock=system_clock,
        directive=lost,
        execution=RunningExecution(
            replays.database, replays.tenant.schema, taken[0].executions[lost.id]
        ),
        vault=Vault(replays.database, load_master_key(replays.settings)),
        http=OutboundClient(replays.settings),
    )
    work = types["signals.replay"].handler
    assert work is not None
    with pytest.raises(StaleLeaseError):
        await work(context, ReplayParams.model_validate(lost.params))
    found = await replays.get(asked.id)
    assert (found.state, counts(found)) == ("requested", {})
    assert await replays.notes() == []
    await replays.leases_end()
    await replays.work()
    assert counts(await replays.get(asked.id)) == {"signals_read": 3, "requested": 3}


async def test_two_live_replays_post_a_digest_once(
    database: Database, settings: Settings, tenant: Tenant
) -> None:
    """A signal's handler asks for a scheduled digest; Mattermost and the ledger see one message."""
    replays = Replays(database, settings, tenant)
    platform = Platform(database, settings, tenant)
    with running_mattermost() as mattermost:
        installation = await connected(platform, mattermost)
        day = date(2026, 1, 6)

        def digest(signal: SignalView) -> list[DirectiveRequest]:
            window = {"start": "2026-01-05T09:00:00Z", "end": "2026-01-06T09:00:00Z"}
            params = {
                "installation_id": str(installation.id), "trigger": "scheduled",
                "local_date": day.isoformat(), "window": window,
            }  # fmt: skip
            key = f"dir:digest:{tenant.slug}:{installation.id}:{day}"
            return [DirectiveRequest("digest.run", params, key, max_attempts=3)]

        replays.handlers = {TYPE: digest}
        await replays.tell(3)
        muted = await replays.replay()
        assert counts(muted) == {"signals_read": 3, "would_request": 1, "duplicates": 2}
        assert mattermost.posts == []
        assert await platform.ledger() == []
        for _ in range(2):
            await replays.replay(live=True)
            await replays.replay(EVERYTHING)
        assert len(mattermost.posts) == 1
        (message,) = await platform.ledger()
        assert message.state == "posted"
        (run,) = await replays.rows("SELECT * FROM directives WHERE type = 'digest.run'")
        assert (run.state, run.max_attempts) == ("succeeded", 3)
