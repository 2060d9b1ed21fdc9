"""Approvals: bound to one text, given by people who may, and asked again where the work is claimed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service
from fleetprompt.directives.approvals.asking import settle_approval
from fleetprompt.directives.approvals.checks import Decider, locked
from fleetprompt.directives.approvals.lapse import NOT_IN_TIME, expire_due
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.taking import take
from fleetprompt.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyMismatchError,
    InvalidError,
    SecretFoundError,
)
from fleetprompt.executions import service as executions
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.directives.approving import Office

FOUR_EYES = ApprovalPolicy(proposer_may_approve=False)


@pytest.fixture
def office(database: Database, settings: Settings, tenant: Tenant) -> Office:
    return Office(database, settings, tenant)


async def test_a_directive_waits_and_runs_once_a_person_approves_what_is_shown(
    office: Office,
) -> None:
    admin = await office.person("admin")
    approval = await office.ask()
    assert approval.action == (
        '{"params":{"to":"ada@example.org","words":"hello"},"target":"platform","type":"test.send"}'
    )
    assert approval.action_sha256 == sha256(approval.action.encode()).hexdigest()
    assert (approval.version, approval.proposed_by) == (1, "key:agent")
    assert await office.work(approval) == []
    approved = await office.approve(approval, admin)
    assert (approved.state, approved.settled_by) == ("approved", admin.actor.id)
    (outcome,) = await office.work(approval)
    assert (outcome.state, len(office.sent)) == ("succeeded", 1)
    assert await office.told(approval) == [
        "directive.requested", "directive.awaiting_approval", "approval.requested",
        "directive.pending", "approval.approved", "directive.running", "directive.succeeded",
    ]  # fmt: skip


async def test_a_type_without_approval_is_pending_at_once(office: Office) -> None:
    async with office.database.tenant(office.tenant.schema) as session:
        directive, _ = await directives.request_directive(
            session, office.tenant, "test.free", {"to": "a", "words": "b"}, idempotency_key="k",
            actor=Actor("user:ada", "admin"), types=office.types,
        )  # fmt: skip
        assert directive.state == "pending"
        assert await service.list_approvals(session, directive_id=directive.id) == []


async def test_an_approval_of_one_text_does_not_release_another(office: Office) -> None:
    admin = await office.person("admin")
    one, other = await office.ask(words="hello"), await office.ask(words="goodbye")
    with pytest.raises(ConflictError, match="hash"):
        await office.approve(other, admin, shown=one.action_sha256)
    await office.approve(one, admin)
    assert (await office.read(other))[1].state == "awaiting_approval"
    assert await office.work(other) == []


async def test_equal_actions_have_equal_hashes_whoever_asks_and_whenever(office: Office) -> None:
    """ShieldCortex #183: what does the same is the same."""
    one, other = await office.ask(), await office.ask(await office.person("owner"))
    assert one.action_sha256 == other.action_sha256
    assert (await office.ask(to="x@example.org")).action_sha256 != one.action_sha256


async def test_an_edit_makes_a_new_version_and_voids_the_approvals(office: Office) -> None:
    office.policy = ApprovalPolicy(approvals=2)
    first, second, third = [await office.person("admin") for _ in range(3)]
    old = await office.ask(key="one-key")
    await office.approve(old, first)
    new = await office.edit(old, third, words="goodbye")
    assert (new.version, new.state, new.proposed_by) == (2, "waiting", third.actor.id)
    assert (await office.read(old))[0].state == "superseded"
    with pytest.raises(ConflictError, match="superseded"):
        await office.approve(old, second)
    assert (await office.approve(new, second)).state == "waiting"
    assert (await office.approve(new, first)).state == "approved"
    await office.work(new)
    assert office.sent == [{"to": "ada@example.org", "words": "goodbye"}]
    assert "approval.edited" in await office.told(new)
    # Who asked first and asks again under the same key still means the same directive.
    assert (await office.ask(key="one-key")).directive_id == old.directive_id
    with pytest.raises(IdempotencyMismatchError):
        await office.ask(key="one-key", words="something else")


async def test_an_edit_is_checked_like_a_request(office: Office) -> None:
    admin, member = await office.person("admin"), await office.person("member")
    approval = await office.ask()
    with pytest.raises(InvalidError) as refused:
        await office.edit(approval, admin, colour="red")
    assert refused.value.errors[0]["pointer"] == "/params/colour"
    with pytest.raises(ForbiddenError, match="admin, owner"):
        await office.edit(approval, member)
    assert (await office.read(approval))[0].state == "waiting"


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (
            """UPDATE directives SET params = '{"to": "eve@example.org", "words": "hello"}',
               changed_by = 'x' WHERE id = :id""",
            "failed",
            "not what was approved",
        ),
        ("UPDATE directives SET target = 'platform', type = 'test.free', changed_by = 'x' "
         "WHERE id = :id", "failed", "not what was approved"),
    ],
    ids=["params", "type"],
)  # fmt: skip
async def test_what_was_changed_after_the_approval_is_not_released(
    office: Office, change: str, state: str, reason: str
) -> None:
    """mcp-hangar #673: the hash is compared where it counts."""
    approval = await office.ask()
    await office.approve(approval, await office.person("admin"))
    await office.tamper(change, approval)
    await _is_refused(office, approval, state, reason, "invalidated")


async def test_an_approval_that_expired_before_the_start_does_not_release(
    office: Office, owner: Database
) -> None:
    """mcp-hangar #665: the expiry is read."""
    approval = await office.ask()
    await office.approve(approval, await office.person("admin"))
    await _set_expiry(owner, approval, office.tenant, "-1 second")
    await _is_refused(office, approval, "cancelled", "expired", "expired")


@pytest.mark.parametrize("role", ["member", "viewer", None])
async def test_an_approver_who_lost_the_role_meanwhile_does_not_release(
    office: Office, role: str | None
) -> None:
    admin = await office.person("admin")
    approval = await office.ask()
    await office.approve(approval, admin)
    await office.demote(admin, role)
    await _is_refused(office, approval, "failed", "only 0 of 1 approvals", "invalidated")


async def test_a_policy_that_changed_meanwhile_does_not_release(office: Office) -> None:
    approval = await office.ask()
    await office.approve(approval, await office.person("admin"))
    await _change_terms(office, replace(office.policy, approvals=2))
    await _is_refused(office, approval, "failed", "policy has changed", "invalidated")


async def test_a_type_that_came_to_need_approval_does_not_run_without(office: Office) -> None:
    async with office.database.tenant(office.tenant.schema) as session:
        directive, _ = await directives.request_directive(
            session, office.tenant, "test.free", {"to": "a", "words": "b"}, idempotency_key="k",
            actor=Actor("user:ada", "admin"), types=office.types,
        )  # fmt: skip
    await _change_terms(office, ApprovalPolicy(), kind="test.free")
    async with office.database.tenant(office.tenant.schema) as session:
        found = await take(
            session,
            office.tenant,
            limit=1,
            owner="w",
            lease_seconds=9,
            ids=[directive.id],
            types=office.types,
        )
    assert found.claimed == []
    assert [end.state for _, end in found.ended] == ["failed"]
    waiting = await office.ask(kind="test.free")
    assert waiting.state == "waiting"


async def test_a_lost_attempt_whose_approval_fell_is_unknown_and_not_tried_again(
    office: Office,
) -> None:
    admin = await office.person("admin")
    approval = await office.ask()
    await office.approve(approval, admin)
    async with office.database.tenant(office.tenant.schema) as session:
        ids = [approval.directive_id]
        found = await take(
            session, office.tenant, limit=1, owner="w", lease_seconds=0, ids=ids, types=office.types
        )
    assert len(found.claimed) == 1
    await office.demote(admin, "viewer")
    (outcome,) = await office.work(approval)
    assert (outcome.state, office.sent) == ("unknown", [])


async def test_two_approvals_are_two_people(office: Office) -> None:
    office.policy = ApprovalPolicy(approvals=2)
    first, second = await office.person("admin"), await office.person("owner")
    approval = await office.ask()
    for _ in range(2):
        assert (await office.approve(approval, first)).state == "waiting"
    assert (await office.read(approval))[1].state == "awaiting_approval"
    assert (await office.approve(approval, second)).state == "approved"


async def test_an_approval_of_somebody_demoted_meanwhile_does_not_count_towards_the_number(
    office: Office,
) -> None:
    office.policy = ApprovalPolicy(approvals=2)
    first, second, third = [await office.person("admin") for _ in range(3)]
    approval = await office.ask()
    await office.approve(approval, first)
    await office.demote(first, "viewer")
    assert (await office.approve(approval, second)).state == "waiting"
    assert (await office.approve(approval, third)).state == "approved"


async def test_under_four_eyes_neither_proposer_nor_editor_may_approve(office: Office) -> None:
    office.policy = FOUR_EYES
    proposer, editor, other = [await office.person("admin") for _ in range(3)]
    approval = await office.ask(proposer)
    with pytest.raises(ForbiddenError, match="proposed"):
        await office.approve(approval, proposer)
    edited = await office.edit(approval, editor, words="goodbye")
    for barred in (proposer, editor):
        with pytest.raises(ForbiddenError, match="proposed"):
            await office.approve(edited, barred)
    assert (await office.approve(edited, other)).state == "approved"


async def test_who_proposed_may_approve_where_four_eyes_are_not_asked_for(office: Office) -> None:
    admin = await office.person("admin")
    assert (await office.approve(await office.ask(admin), admin)).state == "approved"


async def test_only_people_with_the_role_decide(office: Office) -> None:
    approval = await office.ask()
    viewer, member = await office.person("viewer"), await office.person("member")
    admin, gone = await office.person("admin"), await office.person("admin")
    await office.demote(gone, None)
    weak_key = replace(admin, actor=Actor(admin.actor.id, "viewer"))
    strong_key_of_a_viewer = replace(viewer, actor=Actor(viewer.actor.id, "owner"))
    nobodys = Decider(Actor("key:1", "owner"), None)
    connector = Decider(Actor("connector:laptop", "connector"), None)
    for who in (viewer, member, gone, weak_key, strong_key_of_a_viewer, nobodys, connector):
        for decide in (office.approve, office.reject):
            with pytest.raises(ForbiddenError):
                await decide(approval, who)
    assert (await office.read(approval))[0].state == "waiting"


async def test_a_member_decides_where_the_policy_names_members(office: Office) -> None:
    office.policy = ApprovalPolicy(roles=frozenset({"member"}))
    approval = await office.ask()
    with pytest.raises(ForbiddenError, match="member"):
        await office.approve(approval, await office.person("owner"))
    assert (await office.approve(approval, await office.person("member"))).state == "approved"


async def test_a_rejection_cancels_with_its_reason_and_ends_the_execution(office: Office) -> None:
    admin = await office.person("admin")
    approval = await office.ask()
    async with office.database.tenant(office.tenant.schema) as session:
        execution = await executions.create(
            session, "test.send", directive_id=approval.directive_id
        )
    with pytest.raises(SecretFoundError):
        await office.reject(approval, admin, "Authorization: Bearer abcdefghijklmnop")
    rejected = await office.reject(approval, admin, "too blunt")
    assert (rejected.state, rejected.reason) == ("rejected", "too blunt")
    _, directive = await office.read(approval)
    assert (directive.state, directive.error_message) == ("cancelled", "rejected: too blunt")
    assert (await office.reject(approval, admin, "too blunt")).state == "rejected"
    with pytest.raises(ConflictError):
        await office.approve(approval, admin)
    assert await office.work(approval) == []
    async with office.database.tenant(office.tenant.schema) as session:
        ended = await executions.get(session, execution.id)
    assert ended.state == "cancelled"
    assert (await office.told(approval))[-2:] == ["directive.cancelled", "approval.rejected"]


async def test_what_nobody_approves_in_time_is_rejected(office: Office, owner: Database) -> None:
    admin = await office.person("admin")
    due, later = await office.ask(), await office.ask()
    await _set_expiry(owner, due, office.tenant, "-1 second")
    with pytest.raises(ConflictError, match="expired"):
        await office.approve(due, admin)
    async with office.database.tenant(office.tenant.schema) as session:
        assert await expire_due(session, office.tenant, system_clock(), types=office.types) == 1
        assert await expire_due(session, office.tenant, system_clock(), types=office.types) == 0
    approval, directive = await office.read(due)
    assert (approval.state, directive.state) == ("expired", "cancelled")
    assert directive.error_message == NOT_IN_TIME
    assert (await office.told(due))[-2:] == ["directive.cancelled", "approval.expired"]
    assert (await office.read(later))[1].state == "awaiting_approval"


async def test_an_approval_expires_no_later_than_its_directive(office: Office) -> None:
    until = system_clock() + timedelta(minutes=5)
    async with office.database.tenant(office.tenant.schema) as session:
        directive, _ = await directives.request_directive(
            session, office.tenant, "test.send", {"to": "a", "words": "b"}, idempotency_key="k",
            actor=Actor("user:ada", "admin"), expires_at=until, types=office.types,
        )  # fmt: skip
        (approval,) = await service.list_approvals(session, directive_id=directive.id)
    assert approval.expires_at == until


async def test_cancelling_the_directive_withdraws_the_approval(office: Office) -> None:
    admin = await office.person("admin")
    approval = await office.ask()
    async with office.database.tenant(office.tenant.schema) as session:
        await directives.cancel(
            session, office.tenant, approval.directive_id, admin.actor, types=office.types
        )
    assert (await office.read(approval))[0].state == "withdrawn"
    with pytest.raises(ConflictError, match="withdrawn"):
        await office.approve(approval, admin)


async def test_other_terms_ask_anew_for_what_waits(office: Office) -> None:
    office.policy = ApprovalPolicy(approvals=2)
    first, second = await office.person("admin"), await office.person("admin")
    old = await office.ask()
    await office.approve(old, first)
    terms = ApprovalPolicy(approvals=1, proposer_may_approve=False)
    await _change_terms(office, terms)
    assert (await office.read(old))[0].state == "superseded"
    with pytest.raises(ConflictError):
        await office.approve(old, second)
    async with office.database.tenant(office.tenant.schema) as session:
        new, _ = await service.list_approvals(session, directive_id=old.directive_id)
    assert (new.version, new.state, new.proposed_by) == (2, "waiting", "key:agent")
    assert (await office.approve(new, second)).state == "approved"
    (outcome,) = await office.work(new)
    assert outcome.state == "succeeded"


async def test_terms_switched_off_leave_what_waits_and_what_a_type_demands_stays(
    office: Office,
) -> None:
    await _change_terms(office, ApprovalPolicy(), kind="test.free")
    waiting = await office.ask(kind="test.free")
    await _change_terms(office, ApprovalPolicy(), kind="test.free", required=False)
    assert (await office.read(waiting))[1].state == "awaiting_approval"
    await office.approve(waiting, await office.person("owner"))
    (outcome,) = await office.work(waiting)
    assert outcome.state == "succeeded"
    with pytest.raises(ConflictError, match="always needs approval"):
        await _change_terms(office, ApprovalPolicy(), required=False)
    with pytest.raises(ForbiddenError):
        await _change_terms(office, ApprovalPolicy(), by="admin")


@pytest.mark.parametrize(
    "terms",
    [
        {"roles": frozenset()},
        {"roles": frozenset({"viewer"})},
        {"roles": frozenset({"connector"})},
        {"approvals": 0},
        {"approvals": 11},
        {"expires_after_seconds": 59},
        {"expires_after_seconds": 31 * 24 * 3600},
    ],
    ids=str,
)
def test_terms_that_cannot_be_meant_are_refused(terms: dict[str, object]) -> None:
    with pytest.raises(InvalidError) as refused:
        ApprovalPolicy(**terms)  # type: ignore[arg-type]
    assert [one["pointer"] for one in refused.value.errors] == [f"/{next(iter(terms))}"]


async def test_20_approvals_at_once_give_one_transition(office: Office) -> None:
    people = [await office.person("admin") for _ in range(4)]
    approval = await office.ask()
    answers = await asyncio.gather(
        *(office.approve(approval, people[number % 4]) for number in range(20)),
        return_exceptions=True,
    )
    assert {getattr(one, "state", type(one)) for one in answers} == {"approved", ConflictError}
    # The one who was first may repeat it; whoever came later finds it decided.
    told = await office.told(approval)
    assert told.count("directive.pending") == told.count("approval.approved") == 1
    async with office.database.tenant(office.tenant.schema) as session:
        assert len((await service.decisions(session, [approval.id]))[approval.id]) == 1


async def test_approving_rejecting_editing_and_expiring_at_once_give_one_outcome(
    office: Office,
) -> None:
    admin, other = await office.person("admin"), await office.person("admin")

    async def expire() -> None:
        async with office.database.tenant(office.tenant.schema) as session:
            in_a_week = system_clock() + timedelta(days=7)
            await expire_due(session, office.tenant, in_a_week, types=office.types)

    ends = {"approved": "pending", "rejected": "cancelled", "expired": "cancelled"}
    for _ in range(5):
        approval = await office.ask()
        await asyncio.gather(
            office.approve(approval, admin),
            office.reject(approval, other),
            office.edit(approval, admin, words="goodbye"),
            expire(),
            return_exceptions=True,
        )
        found, directive = await office.read(approval)
        told = await office.told(approval)
        assert len([t for t in told if t in ("directive.pending", "directive.cancelled")]) <= 1
        if found.state == "superseded":
            assert directive.state in ("awaiting_approval", "cancelled")
        else:
            assert directive.state == ends[found.state]


async def test_the_database_refuses_to_rewrite_what_was_shown_or_decided(office: Office) -> None:
    approval = await office.ask()
    await office.approve(approval, await office.person("admin"))
    for statement in (
        "UPDATE approvals SET action = '{}' WHERE directive_id = :id",
        "UPDATE approvals SET expires_at = 'infinity' WHERE directive_id = :id",
        "DELETE FROM approvals WHERE directive_id = :id",
        "UPDATE approval_decisions SET actor = 'x' WHERE :id IS NOT NULL",
        "DELETE FROM approval_decisions WHERE :id IS NOT NULL",
    ):
        with pytest.raises(DBAPIError) as refused:
            await office.tamper(statement.replace(":id IS", "CAST(:id AS uuid) IS"), approval)
        assert getattr(refused.value.orig, "sqlstate", "") == "42501", statement


async def test_a_tenant_sees_the_roles_of_its_own_members_alone(
    office: Office, new_tenant: Callable[[], Awaitable[Tenant]]
) -> None:
    other = Office(office.database, office.settings, await new_tenant())
    own, foreign = await office.person("admin"), await other.person("owner")
    async with office.database.tenant(office.tenant.schema) as session:
        rows = await session.execute(
            text("SELECT user_id, role FROM approver_roles(:people)"),
            {"people": [own.user_id, foreign.user_id]},
        )
        assert [tuple(row) for row in rows] == [(own.user_id, "admin")]
    with pytest.raises(DBAPIError) as refused:
        await other.tamper(
            f"SELECT * FROM {office.tenant.schema}.approver_roles(ARRAY[CAST(:id AS uuid)])",
            await office.ask(),
        )
    assert getattr(refused.value.orig, "sqlstate", "") == "42501"
    approval = await office.ask()
    with pytest.raises(ForbiddenError, match="member"):
        await office.approve(approval, foreign)


async def _is_refused(
    office: Office, approval: Approval, state: str, reason: str, ended: str
) -> None:
    (outcome,) = await office.work(approval)
    assert (outcome.state, office.sent) == (state, [])
    found, directive = await office.read(approval)
    assert (directive.state, found.state, directive.attempt) == (state, ended, 0)
    assert reason in str(directive.error_message)
    assert reason in str(found.reason)
    assert {f"directive.{state}", f"approval.{ended}"} <= set(await office.told(approval))
    assert await office.work(approval) == []


async def _change_terms(
    office: Office,
    policy: ApprovalPolicy,
    *,
    kind: str = "test.send",
    required: bool = True,
    by: str = "owner",
) -> None:
    async with office.database.tenant(office.tenant.schema) as session:
        await change_terms(
            session, office.types[kind], required=required, policy=policy,
            by=Actor("user:olga", by),  # type: ignore[arg-type]
        )  # fmt: skip


async def _set_expiry(owner: Database, approval: Approval, tenant: Tenant, offset: str) -> None:
    async with owner.platform() as session:
        await session.execute(
            text(
                f"UPDATE \"{tenant.schema}\".approvals SET expires_at = now() + interval '{offset}'"
                " WHERE id = :id"
            ),
            {"id": approval.id},
        )


async def test_approving_and_editing_at_once_never_releases_what_was_not_shown(
    office: Office,
) -> None:
    """On two connections: whichever is first, the other finds it done and changes nothing."""
    admin, editor = await office.person("admin"), await office.person("admin")
    for _ in range(8):
        office.sent.clear()
        approval = await office.ask()
        approved, edited = await asyncio.gather(
            office.approve(approval, admin),
            office.edit(approval, editor, words="goodbye"),
            return_exceptions=True,
        )
        assert isinstance(approved, ConflictError) != isinstance(edited, ConflictError)
        outcomes = await office.work(approval)
        if isinstance(edited, ConflictError):
            assert [one["words"] for one in office.sent] == ["hello"]
        else:
            assert (outcomes, office.sent) == ([], [])


async def test_dispatch_waits_for_no_decision_under_way_and_looks_once_it_is_made(
    office: Office,
) -> None:
    """Who decides holds the directive's row; a worker passes over it and finds what was decided."""
    admin = await office.person("admin")
    approval = await office.ask()
    await office.approve(approval, admin)
    async with office.database.tenant(office.tenant.schema) as deciding:
        held, _ = await locked(deciding, approval.id)
        assert await office.work(approval) == []
        await settle_approval(deciding, held, "invalidated", settled_by="user:olga")
    (outcome,) = await office.work(approval)
    assert (outcome.state, office.sent) == ("failed", [])
    assert "its approval is invalidated" in str(outcome.error_message)
