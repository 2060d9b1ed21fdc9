"""Whatever people, terms, roles and time do in whatever order: only what is approved now runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from fleetprompt.db.engine import Database
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.checks import Decider
from fleetprompt.directives.approvals.models import Approval
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.approvals.service import list_approvals
from fleetprompt.errors import ConflictError, ForbiddenError
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.keys import Role
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.directives.approving import Office

PEOPLE = st.integers(0, 2)
Result = TypeVar("Result")


class Deciding(RuleBasedStateMachine):
    """A directive, three people, and a model of what may be released."""

    settings: Settings
    tenant: Tenant
    run: Callable[[Awaitable[Any]], Any]
    database: Database

    @initialize()
    def ask(self) -> None:
        self.office = Office(self.database, self.settings, self.tenant, ApprovalPolicy(approvals=2))
        self.people: list[Decider] = [self.run(self.office.person("admin")) for _ in range(3)]
        self.roles: list[Role | None] = ["admin", "admin", "admin"]
        self._change_terms(self.office.policy)
        self.asked_under = self.terms = self.office.policy
        self.words = "version 1"
        self.versions: list[Approval] = [self.run(self.office.ask(words=self.words))]
        self.proposers = {"key:agent"}
        self.votes: set[int] = set()
        self.state, self.expired = "awaiting_approval", False
        self.sent = 0

    @rule()
    @precondition(lambda self: self.state in ("cancelled", "failed", "succeeded"))
    def ask_for_another(self) -> None:
        self.ask()

    @rule()
    @precondition(lambda self: self.state == "awaiting_approval")
    def approve_together(self) -> None:
        for person in range(len(self.people)):
            self.approve(person, stale=False)

    @rule(person=PEOPLE, stale=st.booleans())
    def approve(self, person: int, stale: bool) -> None:
        version = self.versions[0] if stale else self.versions[-1]
        by = self.people[person]
        barred = by.actor.id in self.proposers and not self.asked_under.proposer_may_approve
        counts = (
            version is self.versions[-1]
            and self.roles[person] == "admin"
            and self.state == "awaiting_approval"
            and not self.expired
            and not barred
        )
        try:
            self.run(self.office.approve(version, by))
        except (ConflictError, ForbiddenError):
            assert not counts
            return
        if counts:
            self.votes.add(person)
            if self._standing() >= self.asked_under.approvals:
                self.state = "pending"
        else:
            # Saying the same again is no error, and changes nothing.
            assert person in self.votes or version is not self.versions[-1]

    @rule(person=PEOPLE)
    @precondition(lambda self: self.state == "awaiting_approval")
    def edit(self, person: int) -> None:
        words = f"version {len(self.versions) + 1}"
        try:
            made = self.run(self.office.edit(self.versions[-1], self.people[person], words=words))
        except ForbiddenError:
            assert self.roles[person] != "admin"
            return
        assert self.roles[person] == "admin"
        self.words = words
        self._is_new(made, self.people[person].actor.id)

    @rule(approvals=st.integers(1, 2), proposer_may=st.booleans())
    @precondition(lambda self: self.state in ("awaiting_approval", "pending"))
    def change_terms(self, approvals: int, proposer_may: bool) -> None:
        terms = replace(self.terms, approvals=approvals, proposer_may_approve=proposer_may)
        self._change_terms(terms)
        self.terms = terms
        if self.state == "awaiting_approval" and terms != self.asked_under:
            newest = self.run(self._newest())
            self._is_new(newest, self.versions[-1].proposed_by)

    @rule(person=PEOPLE, role=st.sampled_from(["admin", "viewer"]))
    def change_role(self, person: int, role: Role) -> None:
        self.run(self.office.demote(self.people[person], role))
        self.roles[person] = role

    @rule()
    @precondition(lambda self: self.state in ("awaiting_approval", "pending"))
    def expire(self) -> None:
        self.run(self._set_expired())
        self.expired = True

    @rule(person=PEOPLE)
    @precondition(lambda self: self.state == "awaiting_approval")
    def reject(self, person: int) -> None:
        try:
            self.run(self.office.reject(self.versions[-1], self.people[person]))
        except (ConflictError, ForbiddenError):
            assert self.expired or self.roles[person] != "admin"
            return
        assert not self.expired
        assert self.roles[person] == "admin"
        self.state = "cancelled"

    @rule()
    def work(self) -> None:
        outcomes = self.run(self.office.work(self.versions[-1]))
        if self.state != "pending":
            assert outcomes == []
            return
        stands = self.terms == self.asked_under and self._standing() >= self.asked_under.approvals
        if stands and not self.expired:
            self.state, self.sent = "succeeded", 1
            assert self.office.sent == [{"to": "ada@example.org", "words": self.words}]
        else:
            self.state = "cancelled" if stands else "failed"

    @invariant()
    def the_directive_is_where_the_model_is(self) -> None:
        if hasattr(self, "state"):
            _, directive = self.run(self.office.read(self.versions[-1]))
            assert directive.state == self.state
            assert len(self.office.sent) == self.sent

    def _standing(self) -> int:
        return sum(
            self.roles[person] == "admin"
            and (
                self.asked_under.proposer_may_approve
                or self.people[person].actor.id not in self.proposers
            )
            for person in self.votes
        )

    def _is_new(self, approval: Approval, proposed_by: str) -> None:
        self.versions.append(approval)
        self.proposers = {"key:agent", proposed_by}
        self.votes, self.expired, self.asked_under = set(), False, self.terms

    def _change_terms(self, policy: ApprovalPolicy) -> None:
        async def change() -> None:
            async with self.database.tenant(self.tenant.schema) as session:
                kind = self.office.types["test.send"]
                by = Actor("user:olga", "owner")
                await change_terms(session, kind, required=True, policy=policy, by=by)

        self.run(change())

    async def _newest(self) -> Approval:
        async with self.database.tenant(self.tenant.schema) as session:
            directive_id = self.versions[-1].directive_id
            return (await list_approvals(session, directive_id=directive_id))[0]

    async def _set_expired(self) -> None:
        async with Database.owner(self.settings) as owner, owner.platform() as session:
            await session.execute(
                text(f'UPDATE "{self.tenant.schema}".approvals SET expires_at = now()'),
            )


def test_only_what_is_approved_now_runs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asyncio.Runner() as runner:
        slug = f"t{new_id().hex[-12:]}"
        monkeypatch.setattr(Deciding, "settings", settings, raising=False)
        monkeypatch.setattr(
            Deciding, "tenant", runner.run(create_tenant(settings, slug=slug, name=slug)),
            raising=False,
        )  # fmt: skip
        monkeypatch.setattr(
            Deciding, "run", staticmethod(lambda work: runner.run(work)), raising=False
        )
        database = Database.application(settings)
        monkeypatch.setattr(Deciding, "database", database, raising=False)
        run_state_machine_as_test(
            Deciding,
            settings=how(
                max_examples=20,
                stateful_step_count=20,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
        runner.run(database.close())
