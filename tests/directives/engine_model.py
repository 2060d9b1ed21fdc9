"""What the directive engine must do, in plain Python: the model of test_engine_stateful.

One method for each step that people, workers and time can take. Each changes the model and answers
what the engine must answer: a word, or the name of the error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fleetprompt.directives.approvals.policy import ApprovalPolicy

ADMIN = "user:ada"
MAX_ATTEMPTS = 3
KINDS = ("test.send", "test.free")  # the first needs approval by nature
ENDED = ("succeeded", "failed", "unknown", "cancelled")
EXECUTION_OF = {
    "pending": "requested",
    "running": "running",
    "succeeded": "completed",
    "cancelled": "cancelled",
    "failed": "failed",
    "unknown": "failed",
}


def person(number: int) -> str:
    """How records name the approver of this number."""
    return f"user:approver-{number}"


@dataclass(frozen=True)
class Attempt:
    """One attempt at the directive of a key, by the worker that was given it."""

    key: int
    number: int
    worker: str


@dataclass
class Version:
    """One version of what people are asked to approve."""

    words: str
    policy: ApprovalPolicy
    state: str = "waiting"
    approved_by: set[int] = field(default_factory=set)
    rejected_by: int | None = None
    expired: bool = False


@dataclass
class Job:
    """One directive; ``history`` has (state, attempt, changed by) for each transition."""

    kind: str
    words: str
    late: bool  # its start lies in the future
    expires: bool
    expired: bool = False
    state: str = "requested"
    attempt: int = 0
    lease_past: bool = False
    versions: list[Version] = field(default_factory=list)
    history: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def due(self) -> bool:
        return (self.state == "pending" and not self.late) or (
            self.state == "running" and self.lease_past
        )

    @property
    def execution(self) -> str | None:
        """The state of its execution, which the first attempt makes."""
        return EXECUTION_OF[self.state] if self.attempt else None

    def become(self, state: str, by: str) -> None:
        self.state = state
        self.history.append((state, self.attempt, by))


@dataclass
class EngineModel:
    """The directives of one tenant by key, its terms by type, and every attempt there ever was."""

    jobs: dict[int, Job] = field(default_factory=dict)
    terms: dict[str, tuple[bool, ApprovalPolicy]] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)

    def holds(self, attempt: Attempt) -> bool:
        """Whether the attempt is the one under way."""
        job = self.jobs[attempt.key]
        return job.state == "running" and job.attempt == attempt.number

    def terms_of(self, kind: str) -> tuple[bool, ApprovalPolicy]:
        """Whether the type needs approval, and on which terms."""
        by_nature = kind == KINDS[0]
        required, policy = self.terms.get(kind, (by_nature, ApprovalPolicy()))
        return required or by_nature, policy

    # People

    def request(self, key: int, kind: str, words: str, late: bool, expires: bool, _: int) -> str:
        if key in self.jobs:
            known = self.jobs[key]
            asked = {known.words, *(version.words for version in known.versions[:1])}
            same = known.kind == kind and words in asked
            return "known" if same else "IdempotencyMismatchError"
        job = self.jobs[key] = Job(kind, words, late, expires)
        job.become("requested", ADMIN)
        required, policy = self.terms_of(kind)
        job.become("awaiting_approval" if required else "pending", ADMIN)
        if required:
            job.versions.append(Version(words, policy))
        return "made"

    def cancel(self, key: int) -> str:
        job = self.jobs[key]
        if job.state in ENDED:
            return "cancelled" if job.state == "cancelled" else "ConflictError"
        self._withdraw(job)
        job.become("cancelled", ADMIN)
        return "cancelled"

    def approve(self, key: int, number: int, by: int, right_hash: bool) -> str:
        job = self.jobs[key]
        version = job.versions[number - 1]
        repeated = right_hash and by in version.approved_by
        if repeated and version.state != "waiting":
            return version.state
        required, policy = self.terms_of(job.kind)
        if (
            not right_hash
            or not self._open(job, version)
            or (required and policy != version.policy)
        ):
            return "ConflictError"
        version.approved_by.add(by)
        if len(version.approved_by) >= version.policy.approvals:
            version.state = "approved"
            job.become("pending", person(by))
        return version.state

    def reject(self, key: int, number: int, by: int) -> str:
        job = self.jobs[key]
        version = job.versions[number - 1]
        if version.rejected_by == by:
            return version.state
        if not self._open(job, version):
            return "ConflictError"
        version.state, version.rejected_by = "rejected", by
        job.become("cancelled", person(by))
        return version.state

    def edit(self, key: int, number: int, by: int, words: str) -> str:
        job = self.jobs[key]
        version = job.versions[number - 1]
        if version.state != "waiting" or job.state != "awaiting_approval":
            return "ConflictError"
        job.words = words
        self._renew(job)
        return "waiting"

    def change_terms(self, kind: str, required: bool, approvals: int) -> str:
        if kind == KINDS[0] and not required:
            return "ConflictError"
        policy = ApprovalPolicy(approvals=approvals)
        self.terms[kind] = (required, policy)
        for job in self.jobs.values():
            waits = job.kind == kind and job.state == "awaiting_approval"
            if required and waits and job.versions[-1].policy != policy:
                self._renew(job)
        return "changed"

    def tamper(self, key: int, words: str) -> str:
        """Change what it would do behind everybody's back."""
        self.jobs[key].words = words
        return "done"

    # Workers

    def claim(
        self,
        worker: str,
        limit: int,
        order: Sequence[int],
        _reserve_first: bool,
        passed_over: frozenset[int] = frozenset(),
    ) -> dict[int, tuple[int, str]]:
        """What is claimed, as number of the attempt and words, most urgent first by ``order``.

        ``passed_over`` are rows that somebody else holds at this moment.
        """
        ranked = [*order, *sorted(set(self.jobs) - set(order))]
        due = [key for key in ranked if self.jobs[key].due][:limit]
        claimed = {}
        for key in due:
            job = self.jobs[key]
            if key not in passed_over and self._take(job, worker):
                claimed[key] = (job.attempt, job.words)
                self.attempts.append(Attempt(key, job.attempt, worker))
        return claimed

    def heartbeat(self, worker: str) -> frozenset[int]:
        """The keys of those directives whose lease the worker has kept."""
        kept = [one.key for one in self.attempts if one.worker == worker and self.holds(one)]
        for key in kept:
            self.jobs[key].lease_past = False
        return frozenset(kept)

    def settle(self, attempt: Attempt, end: str) -> str:
        if not self.holds(attempt):
            return "StaleLeaseError"
        job = self.jobs[attempt.key]
        if end.startswith("retry"):
            spent = job.attempt >= MAX_ATTEMPTS
            job.become("failed" if spent else "pending", attempt.worker)
            job.late = not spent and end == "retry later"
        else:
            job.become(end, attempt.worker)
        return job.state

    # Time, and the sweep that follows it

    def lose_lease(self, key: int) -> str:
        self.jobs[key].lease_past = True
        return "done"

    def make_due(self, key: int) -> str:
        self.jobs[key].late = False
        return "done"

    def expire(self, key: int) -> str:
        self.jobs[key].expired = True
        return self.expire_approval(key)

    def expire_approval(self, key: int) -> str:
        for version in self.jobs[key].versions:
            version.expired = True
        return "done"

    def sweep(self, passed_over: frozenset[int] = frozenset()) -> str:
        for key, job in self.jobs.items():
            waits = job.state == "awaiting_approval" and job.versions[-1].expired
            if waits and key not in passed_over:
                job.versions[-1].state = "expired"
                job.become("cancelled", "platform")
        return "done"

    def _open(self, job: Job, version: Version) -> bool:
        return (
            version.state == "waiting"
            and job.state == "awaiting_approval"
            and job.words == version.words
            and not version.expired
        )

    @staticmethod
    def _withdraw(job: Job) -> None:
        for version in job.versions:
            if version.state in ("waiting", "approved"):
                version.state = "withdrawn"

    def _renew(self, job: Job) -> None:
        job.versions[-1].state = "superseded"
        _, policy = self.terms_of(job.kind)
        job.versions.append(Version(job.words, policy, expired=job.expired))

    def _take(self, job: Job, worker: str) -> bool:
        """Whether it is running now; otherwise it has ended."""
        lost = job.state == "running"
        if lost and job.attempt >= MAX_ATTEMPTS:
            job.become("unknown", worker)
            return False
        if refused := self._refused(job):
            # After a lost attempt nobody knows what it did.
            job.become("unknown" if lost else refused, worker)
            return False
        if lost and job.expired:
            job.become("unknown", worker)
            return False
        if lost:
            job.become("pending", worker)
        if job.expired:
            self._withdraw(job)
            job.become("cancelled", worker)
            return False
        job.attempt += 1
        job.become("running", worker)
        job.lease_past = False
        return True

    def _refused(self, job: Job) -> str | None:
        """How it ends where what was approved, if it had to be, is not what would be done."""
        required, policy = self.terms_of(job.kind)
        if not job.versions:
            return "failed" if required else None
        version = job.versions[-1]
        stands = (
            version.state == "approved"
            and job.words == version.words
            and not (required and policy != version.policy)
        )
        if stands and not version.expired:
            return None
        if version.state == "approved":
            version.state = "expired" if stands else "invalidated"
        return "cancelled" if stands else "failed"
