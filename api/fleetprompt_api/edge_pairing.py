"""Pairing: a connector without a key sends the code that a person typed, and gets its key, once."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.connectors import expectations
from fleetprompt.connectors.pairing import About
from fleetprompt_api.addresses import address_of
from fleetprompt_api.auth import Platform
from fleetprompt_api.me import TenantName
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Text

routes = router("connectors", prefix="/api/edge/v1")


class TypedCode(BaseModel):
    """A code as it was typed, and what the connector says of itself."""

    model_config = ConfigDict(extra="forbid")

    code: Annotated[Text, Field(max_length=64)]
    version: Annotated[Text, Field(max_length=64)] | None = None
    account: Annotated[Text, Field(max_length=320)] | None = None
    device_id: Annotated[Text, Field(max_length=128)] | None = None


class Expectations(BaseModel):
    """What the platform expects of a connector."""

    heartbeat_seconds: int = int(expectations.HEARTBEAT.total_seconds())
    silent_after_seconds: int = int(expectations.SILENT_AFTER.total_seconds())
    longest_wait_seconds: int = int(expectations.LONGEST_WAIT.total_seconds())
    oldest_version: str = expectations.OLDEST_VERSION


class PairedConnector(BaseModel):
    """The connector's key, which nobody can show again, and whose connector it is now."""

    key: str
    connector_id: UUID
    label: str
    tenant: TenantName
    expects: Expectations
    warning: str | None = Field(description="A sentence for the person who pairs.")


@routes.post("/pair", responses=problems(401, 429))
async def pair_connector(
    request: Request, response: Response, body: TypedCode, platform: Platform
) -> PairedConnector:
    """Exchange a pairing code for a key. Wrong, used and expired codes are answered alike."""
    paired = await platform.pairing.exchange(
        body.code,
        About(version=body.version, account=body.account, device_id=body.device_id),
        address_of(request, platform),
    )
    response.headers["Cache-Control"] = "no-store"
    return PairedConnector(
        key=paired.key,
        connector_id=paired.connector_id,
        label=paired.label,
        tenant=TenantName(id=paired.tenant.id, slug=paired.tenant.slug),
        expects=Expectations(),
        warning=paired.warning,
    )
