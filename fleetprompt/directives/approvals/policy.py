"""The terms of an approval: who may give it, how many it takes, and how long it holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from fleetprompt.directives.actors import Role
from fleetprompt.errors import InvalidError
from fleetprompt.packages.canonical import canonical_json

APPROVING_ROLES: frozenset[Role] = frozenset({"owner", "admin", "member"})
MOST_APPROVALS = 10
_SHORTEST_SECONDS = 60
_LONGEST_SECONDS = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """Terms of one directive type. ``expires_after_seconds`` counts from the asking to the start.

    ``roles`` are named one by one: an owner may approve only where ``owner`` is among them.
    """

    roles: frozenset[Role] = frozenset({"owner", "admin"})
    approvals: int = 1
    proposer_may_approve: bool = True
    expires_after_seconds: int = 3 * 24 * 3600

    def __post_init__(self) -> None:
        errors = []
        if not self.roles or not self.roles <= APPROVING_ROLES:
            known = ", ".join(sorted(APPROVING_ROLES))
            errors.append({"pointer": "/roles", "detail": f"one or more of: {known}"})
        if not 1 <= self.approvals <= MOST_APPROVALS:
            errors.append({"pointer": "/approvals", "detail": f"1 to {MOST_APPROVALS}"})
        if not _SHORTEST_SECONDS <= self.expires_after_seconds <= _LONGEST_SECONDS:
            errors.append(
                {
                    "pointer": "/expires_after_seconds",
                    "detail": f"{_SHORTEST_SECONDS} to {_LONGEST_SECONDS}",
                }
            )
        if errors:
            raise InvalidError("These terms cannot be used.", errors=errors)

    def as_json(self) -> dict[str, Any]:
        """As stored with every approval that is asked for under it."""
        return {
            "roles": sorted(self.roles),
            "approvals": self.approvals,
            "proposer_may_approve": self.proposer_may_approve,
            "expires_after_seconds": self.expires_after_seconds,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ApprovalPolicy":
        """The inverse of ``as_json``."""
        return cls(**{**stored, "roles": frozenset(stored["roles"])})

    @property
    def sha256(self) -> str:
        """The policy's version: equal terms have equal hashes."""
        return sha256(canonical_json(self.as_json())).hexdigest()
