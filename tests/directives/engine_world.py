"""The steps of test_engine_stateful, done for real on PostgreSQL, and a look at what is there then."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from fleetprompt.clock import system_clock
from fleetprompt.db.engine import Database
from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals import service as approvals
from fleetprompt.directives.approvals.checks import Decider
from fleetprompt.directives.approvals.lapse import expire_due
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.attempt import settle_failure
from fleetprompt.directives.due import reserve
from fleetprompt.directives.end_writer import EndWriter
from fleetprompt.directives.ending import AttemptEnd
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective, Settlement, heartbeat
from fleetprompt.directives.taking import take
from fleetprompt.directives.types import (
    AnyDirectiveType,
    DirectiveParams,
    DirectiveType,
    RetryPolicy,
)
from fleetprompt.errors import FleetPromptError
from fleetprompt.executions.running import RunningExecution
from fleetprompt.tenants.service import Tenant
from tests.directives.engine_model import ADMIN, KINDS, MAX_ATTEMPTS, Attempt, person

LEASE_SECONDS = 600.0
_LATER = "interval '1 hour'"
_AGO = "now() - interval '1 second'"


class Words(DirectiveParams):
    """What to say."""

    words: str


async def _say(_context: HandlerContext, params: Words) -> dict[str, Any]:
    return {"said": params.words}


_RETRY = RetryPolicy(max_attempts=MAX_ATTEMPTS, first_bound=0.0, longest_bound=0.0)
TYPES: dict[str, AnyDirectiveType] = {
    KINDS[0]: DirectiveType(
        KINDS[0], "Says.", Words, _say, retry=_RETRY, approval=ApprovalPolicy()
    ),
    KINDS[1]: DirectiveType(KINDS[1], "Says.", Words, _say, retry=_RETRY),
}

_LOOK = text(
    """
    SELECT d.*, d.lease_expires_at <= now() AS lease_past, d.available_at > now() AS late,
      ARRAY(SELECT t.id FROM directive_transitions t WHERE t.directive_id = d.id ORDER BY t.id)
        AS transitions,
      ARRAY(SELECT t.from_state FROM directive_transitions t WHERE t.directive_id = d.id
            ORDER BY t.id) AS came_from,
      (SELECT jsonb_agg(jsonb_build_array(t.to_state, t.attempt, t.changed_by) ORDER BY t.id)
       FROM directive_transitions t WHERE t.directive_id = d.id) AS history,
      (SELECT jsonb_agg(jsonb_build_array(s.type, s.data -> 'attempt', s.source_event_id)
                        ORDER BY s.id)
       FROM signals s WHERE s.subject_id = d.id::text AND s.subject_type = 'directive') AS told,
      ARRAY(SELECT e.state FROM executions e WHERE e.directive_id = d.id) AS executions,
      ARRAY(SELECT e.finished_at IS NOT NULL FROM executions e WHERE e.directive_id = d.id)
        AS executions_ended,
      ARRAY(SELECT a.state FROM approvals a WHERE a.directive_id = d.id ORDER BY a.version)
        AS approval_states,
      ARRAY(SELECT a.id FROM approvals a WHERE a.directive_id = d.id ORDER BY a.version)
        AS approval_ids,
      ARRAY(SELECT a.action_sha256 FROM approvals a WHERE a.directive_id = d.id
            ORDER BY a.version) AS approval_hashes,
      (SELECT q.due_at FROM fleetprompt.directive_queue q
       WHERE q.directive_id = d.id AND (q.type, q.target, q.priority)
             = (d.type, d.target, d.priority)
         AND q.busy = (d.state = 'running') AND q.expires_at IS NOT DISTINCT FROM d.expires_at)
        AS queued_for,
      EXISTS (SELECT FROM fleetprompt.directive_queue q WHERE q.directive_id = d.id) AS queued
    FROM directives d ORDER BY d.priority DESC, queued_for
    """
)


@dataclass
class World:
    """One tenant, its two approvers, and what the workers and people have in their hands."""

    database: Database
    owner: Database
    tenant: Tenant
    people: Sequence[UUID]
    ids: dict[int, UUID] = field(default_factory=dict)
    held: dict[Attempt, tuple[ClaimedDirective, UUID]] = field(default_factory=dict)
    approvals: dict[tuple[int, int], tuple[UUID, str]] = field(default_factory=dict)

    async def empty(self) -> None:
        """Take out whatever an earlier example left."""
        async with self.owner.tenant(self.tenant.schema) as session:
            await session.execute(text("RESET ROLE"))
            for table in ("executions", "approval_policies", "directives"):
                await session.execute(text(f"DELETE FROM {table}"))

    async def look(self) -> dict[int, Any]:
        """Every directive as it is, by key, the most urgent first."""
        async with self.database.tenant(self.tenant.schema) as session:
            rows = (await session.execute(_LOOK)).all()
        found = {int(row.idempotency_key): row for row in rows}
        for key, row in found.items():
            for number, shown in enumerate(
                zip(row.approval_ids, row.approval_hashes, strict=True), 1
            ):
                self.approvals[key, number] = shown
        return found

    async def do(self, name: str, *values: Any) -> Any:
        """The step's answer, or the name of its error."""
        try:
            return await getattr(self, name)(*values)
        except FleetPromptError as error:
            return type(error).__name__

    async def request(
        self, key: int, kind: str, words: str, late: bool, expires: bool, priority: int
    ) -> str:
        async with self.database.tenant(self.tenant.schema) as session:
            later = await session.scalar(text(f"SELECT now() + {_LATER}"))
            directive, made = await directives.request_directive(
                session, self.tenant, kind, {"words": words},
                idempotency_key=str(key), actor=Actor(ADMIN, "admin"), priority=priority,
                available_at=later if late else None, expires_at=later if expires else None,
                correlation_id=f"corr-{key}", types=TYPES,
            )  # fmt: skip
            self.ids[key] = directive.id
        return "made" if made else "known"

    async def cancel(self, key: int) -> str:
        async with self.database.tenant(self.tenant.schema) as session:
            return (
                await directives.cancel(
                    session, self.tenant, self.ids[key], Actor(ADMIN, "admin"), types=TYPES
                )
            ).state

    async def approve(self, key: int, number: int, by: int, right_hash: bool) -> str:
        approval_id, shown = self.approvals[key, number]
        async with self.database.tenant(self.tenant.schema) as session:
            made = await approvals.approve(
                session, approval_id, shown if right_hash else "0" * 64, self._decider(by),
                types=TYPES,
            )  # fmt: skip
            return made.state

    async def reject(self, key: int, number: int, by: int) -> str:
        approval_id, shown = self.approvals[key, number]
        async with self.database.tenant(self.tenant.schema) as session:
            made = await approvals.reject(
                session, self.tenant, approval_id, shown, "no", self._decider(by), types=TYPES
            )
            return made.state

    async def edit(self, key: int, number: int, by: int, words: str) -> str:
        approval_id, _ = self.approvals[key, number]
        async with self.database.tenant(self.tenant.schema) as session:
            made = await approvals.edit(
                session, approval_id, {"words": words}, self._decider(by), types=TYPES
            )
            return made.state

    async def change_terms(self, kind: str, required: bool, number: int) -> str:
        policy = ApprovalPolicy(approvals=number)
        async with self.database.tenant(self.tenant.schema) as session:
            await change_terms(
                session, TYPES[kind], required=required, policy=policy,
                by=Actor("user:olga", "owner"),
            )  # fmt: skip
        return "changed"

    async def tamper(self, key: int, words: str) -> str:
        return await self._set(
            key, "UPDATE directives SET params = jsonb_build_object('words', CAST(:words AS text))"
            " WHERE id = :id", words=words,
        )  # fmt: skip

    async def claim(
        self, worker: str, limit: int, _order: Sequence[int], reserve_first: bool
    ) -> dict[int, tuple[int, str]]:
        ids = None
        if reserve_first:
            found = await reserve(self.database, limit, most_of_tenant=1000, types=TYPES)
            ids = found.get(self.tenant.schema, [])
        async with self.database.tenant(self.tenant.schema) as session:
            taken = await take(
                session, self.tenant, limit=limit, owner=worker, lease_seconds=LEASE_SECONDS,
                ids=ids, types=TYPES,
            )  # fmt: skip
        claimed = {}
        for one in taken.claimed:
            (key,) = (key for key, directive_id in self.ids.items() if directive_id == one.id)
            self.held[Attempt(key, one.attempt, worker)] = (one, taken.executions[one.id])
            claimed[key] = (one.attempt, one.params["words"])
        return claimed

    async def heartbeat(self, worker: str) -> frozenset[int]:
        mine = {
            attempt: (one.id, one.lease_token)
            for attempt, (one, _) in self.held.items()
            if attempt.worker == worker
        }
        async with self.database.tenant(self.tenant.schema) as session:
            kept = await heartbeat(session, list(mine.values()), lease_seconds=LEASE_SECONDS)
        return frozenset(attempt.key for attempt, (_, token) in mine.items() if token in kept)

    async def settle(self, attempt: Attempt, end: str) -> str:
        held, execution_id = self.held[attempt]
        kind = TYPES[held.type]
        if end == "succeeded":
            settlement = Settlement("succeeded", result={"said": held.params["words"]})
        elif end == "unknown":
            settlement = Settlement("unknown", error_kind="network", error_message="no answer")
        elif end == "failed":
            settlement = settle_failure(kind, held, "auth", "the key is gone", None)
        else:
            wait = 3600.0 if end == "retry later" else None
            settlement = settle_failure(kind, held, "rate_limit", "slow down", wait)
        attempt_end = AttemptEnd(
            held, settlement, RunningExecution(self.database, self.tenant.schema, execution_id)
        )
        writer = EndWriter(self.database, TYPES, owner=attempt.worker, patience_seconds=10)
        written = await writer.write(self.tenant, attempt_end)
        return settlement.state if written else "StaleLeaseError"

    async def lose_lease(self, key: int) -> str:
        return await self._set(
            key, f"UPDATE directives SET lease_expires_at = {_AGO} WHERE id = :id"
        )

    async def make_due(self, key: int) -> str:
        return await self._set(key, f"UPDATE directives SET available_at = {_AGO} WHERE id = :id")

    async def expire(self, key: int) -> str:
        await self._set(key, f"UPDATE directives SET expires_at = {_AGO} WHERE id = :id")
        return await self.expire_approval(key)

    async def expire_approval(self, key: int) -> str:
        return await self._set(
            key, f"UPDATE approvals SET expires_at = {_AGO} WHERE directive_id = :id"
        )

    async def sweep(self) -> str:
        async with self.database.tenant(self.tenant.schema) as session:
            await expire_due(session, self.tenant, system_clock(), types=TYPES)
        return "done"

    def _decider(self, by: int) -> Decider:
        return Decider(Actor(person(by), "admin"), self.people[by])

    async def _set(self, key: int, statement: str, **values: Any) -> str:
        """Let time pass: leases and due times go by the database's own clock, which stays right."""
        async with self.owner.tenant(self.tenant.schema) as session:
            await session.execute(text("RESET ROLE"))
            await session.execute(text(statement), {"id": self.ids[key], **values})
        return "done"
