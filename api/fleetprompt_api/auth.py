"""Who asks, and what that one may do: dependencies named by intent.

The key comes from the Authorization header alone, and the tenant from the key alone.
"""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPBearer
from starlette.requests import Request

from fleetprompt.directives.actors import Actor
from fleetprompt.tenants.key_service import Identity
from fleetprompt.tenants.keys import Role, Scope
from fleetprompt_api.signals_ingest import bearer_token
from fleetprompt_api.state import NOTES, AppState, state_of

SECURITY_SCHEME = "ApiKey"

# Describes the scheme in the OpenAPI document; the key itself is read by ``identified``.
_described = HTTPBearer(
    scheme_name=SECURITY_SCHEME,
    bearerFormat="fp_<kind>_…",
    description="An API key, `Authorization: Bearer fp_…`. Its tenant is the tenant of the request.",
    auto_error=False,
)

Platform = Annotated[AppState, Depends(state_of)]


async def identified(request: Request) -> Identity:
    """Whose key the request carries; UnauthenticatedError otherwise."""
    notes = NOTES.get()
    if notes is not None and notes.identity is not None:
        return notes.identity
    return await state_of(request).key_ring.identify(bearer_token(request))


class Allowed:
    """A dependency: the caller, if its key has the scope and, where asked, at least the role."""

    def __init__(self, scope: Scope | None = None, role: Role | None = None) -> None:
        self.scope = scope
        self.role = role

    async def __call__(
        self, request: Request, _key: Annotated[object, Depends(_described)]
    ) -> Identity:
        """Check one request."""
        identity = await identified(request)
        if self.scope is not None:
            identity.require(self.scope, self.role)
        return identity


AnyKey = Annotated[Identity, Depends(Allowed())]
SignalsRead = Annotated[Identity, Depends(Allowed(Scope.SIGNALS_READ))]
DirectivesRead = Annotated[Identity, Depends(Allowed(Scope.DIRECTIVES_READ))]
# Whose role may decide about one approval is for its terms to say; nobody below a member ever may.
ApprovalsDecide = Annotated[Identity, Depends(Allowed(Scope.APPROVALS_DECIDE, "member"))]
ApprovalsGovern = Annotated[Identity, Depends(Allowed(Scope.APPROVALS_DECIDE, "owner"))]
ExecutionsRead = Annotated[Identity, Depends(Allowed(Scope.EXECUTIONS_READ))]
ExecutionsWrite = Annotated[Identity, Depends(Allowed(Scope.EXECUTIONS_WRITE, "member"))]
PackagesRead = Annotated[Identity, Depends(Allowed(Scope.PACKAGES_READ))]
PackagesWrite = Annotated[Identity, Depends(Allowed(Scope.PACKAGES_WRITE, "admin"))]
MembersManage = Annotated[Identity, Depends(Allowed(Scope.MEMBERS_MANAGE, "admin"))]
KeysManage = Annotated[Identity, Depends(Allowed(Scope.KEYS_MANAGE, "admin"))]
TenantsAdmin = Annotated[Identity, Depends(Allowed(Scope.TENANTS_ADMIN, "admin"))]


def actor_of(identity: Identity) -> Actor:
    """How the caller is named in what it causes."""
    return Actor(identity.actor, identity.role or "connector")
