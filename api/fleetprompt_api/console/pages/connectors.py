"""Connectors: what is known of each, a pairing code that is shown once, and revoking."""

from dataclasses import dataclass
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fleetprompt.connectors import service
from fleetprompt.connectors.expectations import PACKAGE
from fleetprompt.connectors.models import Connector
from fleetprompt.connectors.pairing import IssuedCode
from fleetprompt.connectors.schemas import view_of
from fleetprompt.errors import InvalidError, MalformedError
from fleetprompt.sessions.service import SignedIn
from fleetprompt.tenants.keys import Scope, at_least
from fleetprompt_api.auth import Platform, actor_of
from fleetprompt_api.connectors import command_of
from fleetprompt_api.console.forms import field, read_form
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router
from fleetprompt_api.console.page import render
from fleetprompt_api.state import AppState

routes = page_router()

_PAGE = 50
_ADDRESS = "/console/connectors"


@dataclass(frozen=True, slots=True)
class ShownCode:
    """A code on the one page that shows it."""

    label: str
    issued: IssuedCode
    command: str


@routes.api_route("/connectors", methods=LOOKING)
async def read_connectors(
    visitor: Visitor, platform: Platform, before: UUID | None = None
) -> Response:
    """Every connector with its last heartbeat and error, newest first."""
    return await _page(platform, visitor, before=before)


@routes.post("/connectors")
async def make_code(request: Request, visitor: Visitor, platform: Platform) -> Response:
    """A new connector, or for one that is named a new code. The answer is the only page that shows it."""
    identity = visitor.identity
    identity.require(Scope.KEYS_MANAGE, "admin")
    sent = await read_form(request)
    try:
        connector, issued = await _make(platform, visitor, sent)
    except InvalidError as error:
        return await _page(platform, visitor, error=error, label=sent.get("label", ""))
    shown = ShownCode(connector.label, issued, command_of(platform, issued.code))
    return await _page(platform, visitor, code=shown)


async def _make(
    platform: AppState, visitor: SignedIn, sent: dict[str, str]
) -> tuple[Connector, IssuedCode]:
    tenant = visitor.identity.tenant
    if "connector_id" not in sent:
        return await service.create(
            platform.database,
            platform.pairing,
            tenant,
            field(sent, "label"),
            actor_of(visitor.identity),
        )
    try:
        connector_id = UUID(sent["connector_id"])
    except ValueError:
        raise MalformedError("The form names no connector.") from None
    return await service.new_code(platform.database, platform.pairing, tenant, connector_id)


@routes.post("/connectors/{connector_id}/revoke")
async def revoke(connector_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """End its key and cancel what waits for it."""
    identity = visitor.identity
    identity.require(Scope.KEYS_MANAGE, "admin")
    await service.revoke(
        platform.database,
        identity.tenant,
        connector_id,
        actor_of(identity),
        platform.directive_types,
    )
    return RedirectResponse(_ADDRESS, 303)


async def _page(
    platform: AppState,
    visitor: SignedIn,
    *,
    before: UUID | None = None,
    code: ShownCode | None = None,
    error: InvalidError | None = None,
    label: str = "",
) -> Response:
    identity = visitor.identity
    identity.require(Scope.PACKAGES_READ)
    async with platform.database.tenant(identity.tenant.schema) as session:
        found = await service.list_connectors(session, before=before, limit=_PAGE)
        installed = await service.installation_ids(session)
    now = platform.clock()
    return render(
        "connectors.html",
        visitor=visitor,
        status=error.status if error else 200,
        here="Connectors",
        now=now,
        connectors=[view_of(one, installed.get(one.package), now) for one in found],
        installed=PACKAGE in installed,
        may_manage=Scope.KEYS_MANAGE in identity.scopes and at_least(identity.role, "admin"),
        code=code,
        error=error,
        label=label,
        label_limit=service.LABEL_LIMIT,
        older=found[-1].id if len(found) == _PAGE else None,
    )
