"""Who asks, and what that one may do: dependencies named by intent.

A key comes from the Authorization header alone; a request without that header may carry a signed-in
person's session in its cookie. The tenant comes from the key or the session alone.
"""

from typing import Annotated

from fastapi import Depends
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import Request

from fleetprompt.directives.actors import Actor
from fleetprompt.tenants.key_service import Identity
from fleetprompt.tenants.keys import Role, Scope
from fleetprompt_api.session_cookie import PLAIN_NAME, check_same_origin, session_token
from fleetprompt_api.signals_ingest import bearer_token
from fleetprompt_api.state import NOTES, AppState, state_of

SECURITY_SCHEME = "ApiKey"
SESSION_SCHEME = "Session"

# Describes the scheme in the OpenAPI document; the key itself is read by ``identified``.
_described = HTTPBearer(
    scheme_name=SECURITY_SCHEME,
    bearerFormat="fp_<kind>_…",
    description="An API key, `Authorization: Bearer fp_…`. Its tenant is the tenant of the request.",
    auto_error=False,
)

_described_session = APIKeyCookie(
    name=PLAIN_NAME,
    scheme_name=SESSION_SCHEME,
    description=(
        "The session of a person who is signed in at `/console`. Over https the cookie's name begins "
        "with `__Host-`. Every method but GET needs `Sec-Fetch-Site: same-origin` or our own `Origin`."
    ),
    auto_error=False,
)

Platform = Annotated[AppState, Depends(state_of)]


async def identified(request: Request) -> Identity:
    """Whose key or session the request carries; UnauthenticatedError otherwise."""
    notes = NOTES.get()
    if notes is not None and notes.identity is not None:
        return notes.identity
    identity = await identified_now(request)
    if notes is not None:
        notes.identity = identity
    return identity


async def identified_now(request: Request, *, noted: bool = True) -> Identity:
    """The same, looked up again: for what goes on after a key is revoked or a session over.

    ``noted``: the request is a sign of life of a session, as a stream that stays open is not.
    """
    platform = state_of(request)
    if "authorization" not in request.headers:
        token = session_token(request, platform.settings)
        if token is not None:
            check_same_origin(request, platform.settings)
            return (await platform.sessions.find(token, noted=noted)).identity
    return await platform.key_ring.identify(bearer_token(request))


class Allowed:
    """A dependency: the caller, if its key or session has the scope and, where asked, at least the role."""

    def __init__(self, scope: Scope | None = None, role: Role | None = None) -> None:
        self.scope = scope
        self.role = role

    async def __call__(
        self,
        request: Request,
        _key: Annotated[object, Depends(_described)],
        _session: Annotated[object, Depends(_described_session)],
    ) -> Identity:
        """Check one request."""
        identity = await identified(request)
        if self.scope is not None:
            identity.require(self.scope, self.role)
        return identity


AnyKey = Annotated[Identity, Depends(Allowed())]
SignalsRead = Annotated[Identity, Depends(Allowed(Scope.SIGNALS_READ))]
DirectivesRead = Annotated[Identity, Depends(Allowed(Scope.DIRECTIVES_READ))]
# Which role may ask for a directive is for its type to say; nobody below a member ever may.
DirectivesWrite = Annotated[Identity, Depends(Allowed(Scope.DIRECTIVES_WRITE, "member"))]
# Whose role may decide about one approval is for its terms to say; nobody below a member ever may.
ApprovalsDecide = Annotated[Identity, Depends(Allowed(Scope.APPROVALS_DECIDE, "member"))]
ApprovalsAnnounce = Annotated[Identity, Depends(Allowed(Scope.APPROVALS_DECIDE, "admin"))]
ApprovalsGovern = Annotated[Identity, Depends(Allowed(Scope.APPROVALS_DECIDE, "owner"))]
ExecutionsRead = Annotated[Identity, Depends(Allowed(Scope.EXECUTIONS_READ))]
ExecutionsWrite = Annotated[Identity, Depends(Allowed(Scope.EXECUTIONS_WRITE, "member"))]
PackagesRead = Annotated[Identity, Depends(Allowed(Scope.PACKAGES_READ))]
PackagesWrite = Annotated[Identity, Depends(Allowed(Scope.PACKAGES_WRITE, "admin"))]
WebchatRead = Annotated[Identity, Depends(Allowed(Scope.WEBCHAT_READ))]
WebchatWrite = Annotated[Identity, Depends(Allowed(Scope.WEBCHAT_WRITE, "member"))]
WebchatManage = Annotated[Identity, Depends(Allowed(Scope.WEBCHAT_WRITE, "admin"))]
MembersManage = Annotated[Identity, Depends(Allowed(Scope.MEMBERS_MANAGE, "admin"))]
KeysManage = Annotated[Identity, Depends(Allowed(Scope.KEYS_MANAGE, "admin"))]
TenantsAdmin = Annotated[Identity, Depends(Allowed(Scope.TENANTS_ADMIN, "admin"))]


def actor_of(identity: Identity) -> Actor:
    """How the caller is named in what it causes."""
    return Actor(identity.actor, identity.role or "connector")
