"""The typed registry of directive types: what may be asked for, by whom, and how it is worked off.

The platform's nouns and each package offer theirs as ``DIRECTIVE_TYPES`` in a ``handlers`` module;
``directive_types()`` collects them. ``docs/reference/directives.md`` describes each, and a test
fails if one is missing there.
"""

import importlib
import importlib.util
import pkgutil
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from fleetprompt.directives.actors import Role
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.failures import FINAL_KINDS
from fleetprompt.errors import ErrorKind, InvalidError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from fleetprompt.directives.handling import HandlerContext
    from fleetprompt.directives.leases import ClaimedDirective
    from fleetprompt.tenants.service import Tenant

ADMINISTRATORS: frozenset[Role] = frozenset({"owner", "admin"})
# The target of directives that the platform works off; any other target is a connector's id.
PLATFORM_TARGET = "platform"


class DirectiveParams(BaseModel):
    """Base of all directives' params: unknown names are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Params = TypeVar("Params", bound=DirectiveParams)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon an attempt is followed by another; times in seconds.

    Exponential backoff with full jitter: a delay drawn evenly between zero and the bound, which
    doubles with each attempt, so that many failures at once do not come back at once.
    """

    max_attempts: int = 5
    first_bound: float = 5.0
    longest_bound: float = 600.0

    def delay(
        self,
        attempt: int,
        error_kind: ErrorKind,
        retry_after: float | None,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> float | None:
        """Seconds until another attempt may follow number ``attempt``, None for never.

        Auth and validation are never retried. ``Retry-After`` is a lower bound, never shortened.
        Whether attempts are left is for the directive's own ``max_attempts`` to say.
        """
        if error_kind in FINAL_KINDS:
            return None
        bound = min(self.longest_bound, self.first_bound * 2 ** min(attempt - 1, 30))
        return draw(0.0, bound) + (retry_after or 0.0)


@dataclass(frozen=True, slots=True)
class Failure:
    """How a directive ended badly, for the one who must clean up after it."""

    state: str
    error_kind: ErrorKind
    message: str


Handler = Callable[["HandlerContext", Params], Awaitable[dict[str, Any]]]
AfterFailure = Callable[
    ["AsyncSession", "Tenant", "ClaimedDirective", Params, Failure], Awaitable[None]
]


@dataclass(frozen=True, slots=True)
class DirectiveType(Generic[Params]):
    """One thing that may be asked for.

    The handler may be run again after a crash at any point, so it must be written for that; it
    returns the directive's result, JSON without secrets. ``after_failure`` runs in the transaction
    that makes the directive failed or unknown, or calls it off for want of an approval. ``timeout``
    is in seconds, for one attempt. With ``approval`` it waits for people's word, on these terms or
    the tenant's own (docs/decisions/approvals.md).

    With ``target`` "connector" there is no handler: whoever asks names a connector, which fetches
    the directive and reports how it ended (docs/decisions/connector-delivery.md).

    With ``over_http`` the directive is all there is to it, so that anybody with the role may ask for
    it at ``POST /api/v1/directives``. A type whose asking makes other rows too has its own endpoint.
    """

    name: str
    summary: str
    params: type[Params]
    handler: Handler[Params] | None = None
    roles: frozenset[Role] = ADMINISTRATORS
    target: Literal["platform", "connector"] = "platform"
    timeout: float = 60.0
    concurrency: int | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    after_failure: AfterFailure[Params] | None = None
    approval: ApprovalPolicy | None = None
    over_http: bool = False

    def __post_init__(self) -> None:
        """Refuse a type that nobody, or more than one side, would work off."""
        if (self.handler is None) != (self.target == "connector"):
            raise ValueError(
                f"{self.name}: a handler is for the platform's types, and for those alone"
            )
        if self.concurrency is not None and (self.concurrency < 1 or self.handler is None):
            raise ValueError(
                f"{self.name}: a concurrency is at least 1, and for the platform's types"
            )

    def allows(self, role: Role) -> bool:
        """Whether an actor with this role may ask for it."""
        return role == "platform" or role in self.roles


AnyDirectiveType = DirectiveType[Any]

# Nouns of the platform that offer directive types; packages are found in their folder.
_PLATFORM_MODULES = (
    "fleetprompt.directives.approvals.notices.handlers",
    "fleetprompt.health.alerts",
    "fleetprompt.packages.handlers",
    "fleetprompt.signals.replays.handlers",
    "fleetprompt.webchat.handlers",
)


@lru_cache(maxsize=1)
def directive_types() -> Mapping[str, AnyDirectiveType]:
    """Every directive type by name; two of one name are a programming error."""
    found: dict[str, AnyDirectiveType] = {}
    for module in (*_PLATFORM_MODULES, *_package_modules()):
        for kind in _offered(module):
            if kind.name in found:
                raise RuntimeError(f"two directive types are called {kind.name!r}")
            found[kind.name] = kind
    return found


def find_type(name: str, types: Mapping[str, AnyDirectiveType] | None = None) -> AnyDirectiveType:
    """The directive type of this name; InvalidError if there is none."""
    known = directive_types() if types is None else types
    if name not in known:
        raise InvalidError(
            f"There is no directive type {name!r}.",
            errors=[{"pointer": "/type", "detail": f"one of: {', '.join(sorted(known))}"}],
        )
    return known[name]


def _package_modules() -> Iterable[str]:
    packages = importlib.import_module("fleetprompt.packages")
    for folder in pkgutil.iter_modules(packages.__path__, "fleetprompt.packages."):
        if folder.ispkg and importlib.util.find_spec(f"{folder.name}.handlers"):
            yield f"{folder.name}.handlers"


def _offered(module: str) -> tuple[AnyDirectiveType, ...]:
    offered: tuple[AnyDirectiveType, ...] = importlib.import_module(module).DIRECTIVE_TYPES
    return offered
