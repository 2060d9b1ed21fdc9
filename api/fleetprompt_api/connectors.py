"""Connectors of a tenant: making them, what is known of each, revoking. Pairing codes are shown once."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.connectors import service
from fleetprompt.connectors.models import Connector
from fleetprompt.connectors.pairing import IssuedCode
from fleetprompt.connectors.schemas import ConnectorView, Time, view_of
from fleetprompt_api.auth import KeysManage, PackagesRead, Platform, actor_of
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.state import AppState
from fleetprompt_api.wire import Cursor, Limit, Links, Page, Text, page, read_cursor

routes = router("connectors")


class LinkedConnector(ConnectorView):
    """A connector and where to go on from it."""

    links: Links


class NewConnector(BaseModel):
    """A connector to be made."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[Text, Field(max_length=service.LABEL_LIMIT)]


class PairingCode(BaseModel):
    """A code that is shown once, and the line that is typed where the connector runs."""

    code: str
    expires_at: Time
    command: str


class UnpairedConnector(BaseModel):
    """A connector with a new pairing code."""

    connector: LinkedConnector
    pairing: PairingCode


@routes.post("/connectors", status_code=201)
async def create_connector(
    new: NewConnector, caller: KeysManage, platform: Platform, response: Response
) -> UnpairedConnector:
    """Make a connector and the code to pair it with."""
    made, issued = await service.create(
        platform.database, platform.pairing, caller.tenant, new.label, actor_of(caller)
    )
    response.headers["Location"] = f"/api/v1/connectors/{made.id}"
    return await _unpaired(platform, caller.tenant.schema, made, issued, response)


@routes.get("/connectors")
async def list_connectors(
    request: Request,
    caller: PackagesRead,
    platform: Platform,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[LinkedConnector]:
    """Connectors, newest first."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.list_connectors(session, before=read_cursor(cursor), limit=limit)
        installed = await service.installation_ids(session)
    return page(
        request,
        found,
        limit,
        lambda one: one.id,
        lambda one: _linked(platform, one, installed.get(one.package)),
    )


@routes.get("/connectors/{connector_id}")
async def read_connector(
    connector_id: UUID, caller: PackagesRead, platform: Platform
) -> LinkedConnector:
    """One connector: its state, its last heartbeat and error, and what a person should know."""
    return await _read(platform, caller.tenant.schema, connector_id)


@routes.post("/connectors/{connector_id}/code", responses=problems(409))
async def make_pairing_code(
    connector_id: UUID, caller: KeysManage, platform: Platform, response: Response
) -> UnpairedConnector:
    """Another code; the one before is worthless. The connector's key goes on until it is exchanged."""
    connector, issued = await service.new_code(
        platform.database, platform.pairing, caller.tenant, connector_id
    )
    return await _unpaired(platform, caller.tenant.schema, connector, issued, response)


@routes.post("/connectors/{connector_id}/revoke")
async def revoke_connector(
    connector_id: UUID, caller: KeysManage, platform: Platform
) -> LinkedConnector:
    """End the connector's key within a second and cancel what waits for it. Again is no error."""
    await service.revoke(
        platform.database, caller.tenant, connector_id, actor_of(caller), platform.directive_types
    )
    return await _read(platform, caller.tenant.schema, connector_id)


def command_of(platform: AppState, code: str) -> str:
    """What is typed where the connector runs."""
    return f"fleetprompt-edge pair {code} --url {platform.settings.api_url}"


async def _unpaired(
    platform: AppState, schema: str, connector: Connector, issued: IssuedCode, response: Response
) -> UnpairedConnector:
    response.headers["Cache-Control"] = "no-store"
    return UnpairedConnector(
        connector=await _read(platform, schema, connector.id),
        pairing=PairingCode(
            code=issued.code,
            expires_at=issued.expires_at,
            command=command_of(platform, issued.code),
        ),
    )


async def _read(platform: AppState, schema: str, connector_id: UUID) -> LinkedConnector:
    async with platform.database.tenant(schema) as session:
        connector = await service.get(session, connector_id)
        installed = await service.installation_ids(session)
    return _linked(platform, connector, installed.get(connector.package))


def _linked(
    platform: AppState, connector: Connector, installation_id: UUID | None
) -> LinkedConnector:
    view = view_of(connector, installation_id, platform.clock())
    links = {
        "self": f"/api/v1/connectors/{connector.id}",
        "timeline": f"/api/v1/timeline/connector:{connector.id}",
        "directives": f"/api/v1/directives?target={connector.id}",
    }
    if installation_id is not None:
        links["installation"] = f"/api/v1/installations/{installation_id}"
    return LinkedConnector(**dict(view), links=links)
