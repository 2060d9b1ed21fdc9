"""The directive engine against its model: two workers, people and time, in any order and at once.

Each step is done for real and in ``engine_model``; afterwards the tables must be where the model is.
Two steps at once must end as one of their orders would. More examples, drawn anew each time:
``ENGINE_EXAMPLES=2000 pytest tests/directives/test_engine_stateful.py``.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain, combinations
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as how
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from fleetprompt.db.engine import Database
from fleetprompt.ids import new_id
from fleetprompt.settings import Settings
from fleetprompt.tenants.members import add_member
from fleetprompt.tenants.service import Tenant, create_tenant
from tests.directives.engine_model import ENDED, KINDS, MAX_ATTEMPTS, EngineModel
from tests.directives.engine_world import World

pytestmark = pytest.mark.slow

EXAMPLES = os.environ.get("ENGINE_EXAMPLES")
# What comes next depends on which of two steps was first, which differs from one time to the next;
# what Hypothesis draws must not, so it draws where to draw from.
SEEDS = st.integers(0, 2**32 - 1)
WORKERS = ("worker:a", "worker:b")
KEYS = range(12)
WORDS = ("one", "two")
ENDS = ("succeeded", "failed", "unknown", "retry", "retry", "retry later")
PEOPLE = (0, 1)
EITHER = (False, True)
AWAITING = "awaiting_approval"
ALL = 100  # a limit that no claim here comes up to

# How often a step is taken beside the others, which end most directives before much has happened.
OFTEN = {"claim": 10, "settle": 8, "lose_lease": 10, "approve": 8, "request": 4, "make_due": 3,
         "heartbeat": 3, "change_terms": 2.5, "cancel": 0.7, "reject": 1.5, "tamper": 2,
         "expire": 4, "expire_approval": 0.5, "sweep": 0.5}  # fmt: skip

# Two of these are done at once. New terms are not among them: what is asked for meanwhile may be
# asked for under either, which approving and claiming then find out.
AT_ONCE = ("request", "claim", "heartbeat", "settle", "cancel", "approve", "reject",
           "edit", "sweep")  # fmt: skip

# What the default run must have met, or it shows less than it says.
MET = {
    "settle: StaleLeaseError", "settle: succeeded", "settle: pending", "settle: unknown",
    "request: known", "request: IdempotencyMismatchError", "cancel: ConflictError",
    "approve: approved", "approve: ConflictError", "reject: rejected",
    "edit: waiting", "heartbeat: kept", "heartbeat: lost",
    "claim: after a lost lease", "claim: given up", "claim: of what was approved",
    "claim: refused", "claim: expired",
}  # fmt: skip

Step = tuple[str, tuple[Any, ...]]


class Engine(RuleBasedStateMachine):
    """One tenant's directives, done for real and in the model."""

    world: World
    run: Callable[[Awaitable[Any]], Any]
    met: Counter[str]

    @initialize()
    def begin(self) -> None:
        self.model = EngineModel()
        self.world.ids.clear()
        self.world.held.clear()
        self.world.approvals.clear()
        self.run(self.world.empty())
        self.seen: dict[int, Any] = {}
        self.steps = 0

    @rule(seed=SEEDS)
    def one_step(self, seed: int) -> None:
        name, values = self._draw(self._chance(seed))
        before = deepcopy(self.model)
        expected = getattr(self.model, name)(*values)
        assert self.run(self.world.do(name, *values)) == expected
        self.seen = self.run(self.world.look())
        assert differences(self.model, self.seen) == []
        self.met.update(told(before, self.model, name, values, expected))

    @rule(seed=SEEDS)
    def two_steps_at_once(self, seed: int) -> None:
        chance = self._chance(seed)
        first, second = self._draw(chance, AT_ONCE), self._draw(chance, AT_ONCE)

        async def both() -> list[Any]:
            return await asyncio.gather(*(self.world.do(one, *of) for one, of in (first, second)))

        answers = self.run(both())
        self.seen = self.run(self.world.look())
        wrong = []
        for order in ((0, 1), (1, 0)):
            for model, expected in in_order(self.model, (first, second), order):
                found = differences(model, self.seen)
                if expected == answers and not found:
                    for (name, values), answer in zip((first, second), answers, strict=True):
                        self.met.update(told(self.model, model, name, values, answer))
                    self.model = model
                    return
                wrong.append((order, expected, found))
        raise AssertionError(f"{first} and {second} at once gave {answers}, and no order: {wrong}")

    @invariant()
    def what_runs_was_allowed_and_every_end_has_one_attempt(self) -> None:
        """Told from the tables alone, whatever the model says."""
        if hasattr(self, "seen"):
            for row in self.seen.values():
                assert check_row(row) == []

    def _chance(self, seed: int) -> random.Random:
        """Another one for each step: Hypothesis likes to draw the same number again."""
        self.steps += 1
        return random.Random(f"{seed} {self.steps}")

    def _draw(self, chance: random.Random, names: Sequence[str] = ()) -> Step:
        """A step that makes sense now, out of ``names`` if there are any."""
        steps = possible(self.model, [*self.seen], chance, at_once=bool(names))
        named = [name for name in steps if not names or name in names]
        (name,) = chance.choices(named, [OFTEN.get(name, 1) for name in named])
        return name, steps[name]


def possible(
    model: EngineModel, order: Sequence[int], chance: random.Random, at_once: bool
) -> dict[str, tuple[Any, ...]]:
    """Every step that makes sense now, by name, with values drawn for it."""
    jobs, pick = model.jobs, chance.choice

    def rarely() -> bool:
        return chance.random() < 0.25

    versions = [(key, n + 1) for key, job in jobs.items() for n in range(len(job.versions))]
    under_way = [one for one in model.attempts if model.holds(one)]
    waiting = {key: job for key, job in jobs.items() if job.state not in ENDED}
    found: dict[str, tuple[Any, ...]] = {
        "request": (pick(KEYS), pick(KINDS), pick(WORDS), rarely(), pick(EITHER), pick((0, 1))),
        "claim": (
            pick(WORKERS),
            ALL if at_once else pick((1, 2, 3)),
            tuple(order),
            not at_once and pick(EITHER),
        ),
        "heartbeat": (pick([*WORKERS, *(one.worker for one in under_way)]),),
        "sweep": (),
        "change_terms": (pick(KINDS), pick(EITHER), pick((1, 2))),
    }

    def of(name: str, keys: Sequence[int], *rest: Any) -> None:
        if keys:
            found[name] = (pick(keys), *rest)

    of("cancel", list(jobs))
    still = [key for key, job in waiting.items() if job.state != "running"]
    of("lose_lease", [one.key for one in under_way])
    of("make_due", [key for key, job in waiting.items() if job.late])
    of("expire", [key for key, job in waiting.items() if job.expires and not job.expired])
    of("expire_approval", [key for key, job in waiting.items() if job.versions])
    approved = [key for key in still if jobs[key].state == "pending" and jobs[key].versions]
    of("tamper", approved or still, "three")
    # What has no effect any more is done too, but not most of the time.
    asked = [(key, len(job.versions)) for key, job in jobs.items() if job.state == AWAITING]
    decide_on = asked if asked and not rarely() else versions
    if decide_on and (asked or rarely()):
        found["approve"] = (*pick(decide_on), pick(PEOPLE), not rarely())
        found["reject"] = (*pick(decide_on), pick(PEOPLE))
        found["edit"] = (*pick(decide_on), pick(PEOPLE), pick(WORDS))
    end = under_way if under_way and not rarely() else model.attempts[-4:]
    if end and (under_way or rarely()):
        found["settle"] = (pick(end), pick(ENDS))
    return found


def in_order(
    model: EngineModel, steps: tuple[Step, Step], order: tuple[int, int]
) -> Iterator[tuple[EngineModel, list[Any]]]:
    """The model after both steps in this order, and their answers, for all that may be passed over.

    Claiming and sweeping pass over rows that somebody else holds at that moment.
    """
    first, second = (steps[place] for place in order)
    if first[0] == "claim":
        locked = [key for key, job in model.jobs.items() if job.due]
    elif first[0] == "sweep":
        locked = [key for key, job in model.jobs.items() if job.state == AWAITING]
    else:
        locked = []
    subsets = chain.from_iterable(combinations(locked, size) for size in range(len(locked) + 1))
    for passed_over in subsets:
        after = deepcopy(model)
        more = {"passed_over": frozenset(passed_over)} if passed_over else {}
        answers = {order[0]: getattr(after, first[0])(*first[1], **more)}
        answers[order[1]] = getattr(after, second[0])(*second[1])
        yield after, [answers[0], answers[1]]


def differences(model: EngineModel, seen: Mapping[int, Any]) -> list[str]:
    """Where the tables are not what the model says."""
    if model.jobs.keys() != seen.keys():
        return [f"directives {sorted(seen)} instead of {sorted(model.jobs)}"]
    found = []
    for key, job in model.jobs.items():
        row = seen[key]
        sides = {
            "state": (row.state, job.state),
            "attempt": (row.attempt, job.attempt),
            "words": (row.params["words"], job.words),
            "history": ([tuple(one) for one in row.history], job.history),
            "approvals": (row.approval_states, [version.state for version in job.versions]),
            "executions": (row.executions, [job.execution] if job.execution else []),
            "due": (row.lease_past if row.state == "running" else not row.late and
                    row.state == "pending", job.due),
        }  # fmt: skip
        found += [f"{key}: {name} {was!r}, not {should!r}"
                  for name, (was, should) in sides.items() if was != should]  # fmt: skip
    return found


def check_row(row: Any) -> list[str]:
    """What is wrong in one directive's rows by themselves."""
    states = [state for state, _, _ in row.history]
    ended = row.state in ENDED
    lease = (row.lease_token, row.lease_owner, row.lease_expires_at)
    begun = [(number, by) for state, number, by in row.history if state == "running"]
    due_at = {"pending": row.available_at, "running": row.lease_expires_at}.get(row.state)
    rules = {
        "the state is that of the last transition": row.state == states[-1],
        "each transition begins where the one before ended": row.came_from == ["", *states[:-1]],
        "T16: one lifecycle signal a transition, in the same order": row.told == [
            [f"directive.{state}", number, f"directive_transition:{one}"]
            for (state, number, _), one in zip(row.history, row.transitions, strict=True)
        ],
        "no attempt beyond the last": row.attempt <= row.max_attempts == MAX_ATTEMPTS,
        "attempts are numbered one by one": [n for n, _ in begun] == [*range(1, row.attempt + 1)],
        "T12: whoever ends an attempt well is who began it": all(
            by == begun[-1][1]
            for state, _, by in row.history[-1:] if state == "succeeded"
        ),
        "a lease while it runs and at no other time": all(lease) if row.state == "running"
        else not any(lease),
        "the lease is that of who began the attempt": row.lease_owner is None
        or row.lease_owner == begun[-1][1],
        "an end has a time, and nothing else has": ended == (row.finished_at is not None),
        "the index table has it as it is, and nothing that neither waits nor runs":
        (row.queued_for, row.queued) == (due_at, due_at is not None),
        "one execution at most, ended with the directive": row.executions_ended
        in ([], [ended]),
    }  # fmt: skip
    return [f"{row.idempotency_key}: not {name}" for name, holds in rules.items() if not holds]


def told(
    before: EngineModel, after: EngineModel, name: str, values: tuple[Any, ...], answer: Any
) -> Iterator[str]:
    """What a step shows, in words that ``MET`` lists."""
    if name == "heartbeat":
        yield f"heartbeat: {'kept' if answer else 'lost'}"
    elif name != "claim":
        yield f"{name}: {answer}"
    else:
        for key, job in before.jobs.items():
            then = after.jobs[key].state
            if key in answer:
                yield "claim: after a lost lease" if job.state == "running" else "claim: first"
                if job.versions:
                    yield "claim: of what was approved"
            elif then == "unknown" != job.state:
                yield "claim: given up"
            elif then == "failed" != job.state:
                yield "claim: refused"
            elif then == "cancelled" != job.state:
                yield "claim: expired"


async def make_world(settings: Settings) -> World:
    slug = f"t{new_id().hex[-12:]}"
    tenant: Tenant = await create_tenant(settings, slug=slug, name=slug)
    database = Database.application(settings)
    people = []
    async with database.platform() as session:
        for _ in range(2):
            email = f"{new_id().hex}@example.org"
            people.append((await add_member(session, tenant, email=email, role="admin")).user_id)
    return World(database, Database.owner(settings), tenant, people)


def test_t12_t16_two_workers_people_and_time_in_any_order(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asyncio.Runner() as runner:
        world = runner.run(make_world(settings))
        met: Counter[str] = Counter()
        monkeypatch.setattr(Engine, "world", world, raising=False)
        monkeypatch.setattr(Engine, "met", met, raising=False)
        monkeypatch.setattr(
            Engine, "run", staticmethod(lambda work: runner.run(work)), raising=False
        )
        try:
            # What is met depends on the machine's speed too: rarely a second, random round is needed.
            for further in range(1 if EXAMPLES else 3):
                run_state_machine_as_test(
                    Engine,
                    settings=how(
                        max_examples=int(EXAMPLES or 30),
                        stateful_step_count=40,
                        deadline=None,
                        database=None,
                        derandomize=EXAMPLES is None and not further,
                        # Shrinking takes minutes; it is worth them when somebody looks for the cause.
                        phases=(Phase.generate, *((Phase.shrink,) if EXAMPLES else ())),
                        report_multiple_bugs=False,
                        suppress_health_check=list(HealthCheck),
                    ),
                )
                if met.keys() >= MET:
                    break
        finally:
            runner.run(world.database.close())
            runner.run(world.owner.close())
    assert set() == MET - met.keys()
