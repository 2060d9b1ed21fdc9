"""Installed packages: looking, configuring, connecting, running, switching off, removing."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from fleetprompt.directives.models import Directive
from fleetprompt.directives.wake import notify_directives
from fleetprompt.packages import credentials, schemas, service
from fleetprompt.packages.models import Installation
from fleetprompt.packages.runs import run_now
from fleetprompt.packages.views import installation_details
from fleetprompt.tenants.key_service import Identity
from fleetprompt.vault.secret import Secret
from fleetprompt_api.auth import PackagesRead, PackagesWrite, Platform, actor_of
from fleetprompt_api.executions import ExecutionView
from fleetprompt_api.idempotency import IdempotencyKey, Ids, once
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.requested import Requested, answer
from fleetprompt_api.routing import router
from fleetprompt_api.state import AppState
from fleetprompt_api.wire import Links, Listing, Text, Wire, listing

routes = router("installations")


class InstallationView(Wire, schemas.InstallationView):
    """An installation of a package."""

    links: Links = Field(default_factory=dict)


class CredentialView(Wire, schemas.CredentialView):
    """A stored credential without its secret."""


class SlotView(Wire, schemas.SlotView):
    """A time at which the installation runs by itself."""


class InstallationDetails(InstallationView):
    """An installation with what belongs to it; ``missing`` names options that must still be given."""

    missing: list[str]
    credentials: list[CredentialView]
    slots: list[SlotView]
    executions: list[ExecutionView]


class Config(BaseModel):
    """The whole new configuration; options left out have the package's defaults."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any]


class NewConnection(BaseModel):
    """How to reach the other side: a secret address, or an address and a token.

    It goes in and never comes out again. A token is kept together with its address, so that it is
    never sent to another one.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[Text, Field(max_length=63, examples=["mattermost", "mattermost_token"])]
    url: Secret
    token: Secret | None = None

    def secret(self) -> Secret:
        """What is sealed."""
        if self.token is None:
            return self.url
        return Secret(json.dumps({"token": self.token.reveal(), "url": self.url.reveal()}))


class Verification(BaseModel):
    """What trying the connection gave; nothing was posted."""

    state: str
    error_kind: str | None
    message: str | None


class Connected(BaseModel):
    """The installation after connecting, and how the trial went."""

    installation: InstallationView
    verification: Verification


@routes.get("/installations")
async def list_installations(
    request: Request, caller: PackagesRead, platform: Platform
) -> Listing[InstallationView]:
    """All installations, by package."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.list_installations(session)
    return listing(request, [_view(one) for one in found])


@routes.get("/installations/{installation_id}")
async def read_installation(
    installation_id: UUID, caller: PackagesRead, platform: Platform
) -> InstallationDetails:
    """One installation with its connections, next slots and last executions."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await installation_details(session, installation_id)
    return InstallationDetails(
        **_view(found).model_dump(),
        missing=found.missing,
        credentials=[CredentialView.model_validate(one) for one in found.credentials],
        slots=[SlotView.model_validate(one) for one in found.slots],
        executions=[ExecutionView.of(one) for one in found.executions],
    )


@routes.put("/installations/{installation_id}/config", status_code=202, responses=problems(409))
async def configure_installation(
    installation_id: UUID, new: Config, caller: PackagesWrite, platform: Platform
) -> Requested:
    """Ask for another configuration; it is checked at once and applied by a directive."""

    async def ask(session: AsyncSession) -> Directive:
        return await service.configure(
            session, caller.tenant, installation_id, new.config, actor_of(caller)
        )

    return await _requested(platform, caller, installation_id, None, {}, ask)


@routes.post(
    "/installations/{installation_id}/connections", status_code=201, responses=problems(409)
)
async def connect_installation(
    installation_id: UUID, new: NewConnection, caller: PackagesWrite, platform: Platform
) -> Connected:
    """Store a credential, in place of the one of its kind before, and try it without posting anything."""
    installation, tried = await credentials.connect(
        platform.database,
        platform.vault,
        platform.outbound,
        platform.settings,
        caller.tenant,
        installation_id,
        new.secret(),
        actor_of(caller),
        kind=new.kind,
        clock=platform.clock,
    )
    return Connected(
        installation=_view(installation),
        verification=Verification(
            state=tried.state, error_kind=tried.error_kind, message=tried.message
        ),
    )


@routes.post(
    "/installations/{installation_id}/run", status_code=202, responses=problems(409, 422, 429)
)
async def run_installation(
    installation_id: UUID,
    caller: PackagesWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Requested:
    """Run now: a directive, and the execution that tells what became of it."""
    request = {"operation": "run", "installation_id": str(installation_id)}
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            directive, execution = await run_now(
                session,
                caller.tenant,
                installation_id,
                actor_of(caller),
                platform.settings,
                platform.clock(),
            )
            return {
                "directive_id": str(directive.id),
                "installation_id": str(installation_id),
                "execution_id": str(execution.id),
            }

        ids = await once(session, caller, idempotency_key, request, act)
        requested = await answer(session, ids)
    await notify_directives(platform.database)
    return requested


@routes.post("/installations/{installation_id}/disable", status_code=202, responses=problems(409))
async def disable_installation(
    installation_id: UUID,
    caller: PackagesWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Requested:
    """Ask to switch it off: no schedule, no runs, everything kept."""

    async def ask(session: AsyncSession) -> Directive:
        return await service.disable(session, caller.tenant, installation_id, actor_of(caller))

    request = {"operation": "disable", "installation_id": str(installation_id)}
    return await _requested(platform, caller, installation_id, idempotency_key, request, ask)


@routes.post("/installations/{installation_id}/enable", status_code=202, responses=problems(409))
async def enable_installation(
    installation_id: UUID,
    caller: PackagesWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Requested:
    """Ask to switch it on again, from now on; nothing missed is caught up."""

    async def ask(session: AsyncSession) -> Directive:
        return await service.enable(session, caller.tenant, installation_id, actor_of(caller))

    request = {"operation": "enable", "installation_id": str(installation_id)}
    return await _requested(platform, caller, installation_id, idempotency_key, request, ask)


@routes.delete("/installations/{installation_id}", status_code=202, responses=problems(409))
async def remove_installation(
    installation_id: UUID, caller: PackagesWrite, platform: Platform
) -> Requested:
    """Ask to remove it with its credentials; its history stays in the signals."""

    async def ask(session: AsyncSession) -> Directive:
        return await service.uninstall(session, caller.tenant, installation_id, actor_of(caller))

    return await _requested(platform, caller, installation_id, None, {}, ask)


async def _requested(
    platform: AppState,
    caller: Identity,
    installation_id: UUID,
    key: str | None,
    request: Mapping[str, Any],
    ask: Callable[[AsyncSession], Awaitable[Directive]],
) -> Requested:
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            directive = await ask(session)
            return {"directive_id": str(directive.id), "installation_id": str(installation_id)}

        ids = await once(session, caller, key, request, act)
        requested = await answer(session, ids)
    await notify_directives(platform.database)
    return requested


def _view(installation: Installation | schemas.InstallationView) -> InstallationView:
    view = InstallationView.model_validate(installation)
    own = f"/api/v1/installations/{installation.id}"
    view.links = {
        "self": own,
        "package": f"/api/v1/packages/{installation.package}",
        "executions": f"/api/v1/executions?installation_id={installation.id}",
        "outbound_messages": f"{own}/outbound-messages",
        "signals": f"/api/v1/signals?subject_type=installation&subject_id={installation.id}",
    }
    return view
