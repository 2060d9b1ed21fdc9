"""Packages: how each installation is, what it sent, and the ways out of trouble."""

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import ConflictError, InvalidError, MalformedError, RateLimitedError
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.packages import credentials, registry, service
from fleetprompt.packages.operations import (
    Resolution,
    connectables_of,
    operations_of,
    posting_operations_of,
)
from fleetprompt.packages.runs import post_test, run_now
from fleetprompt.packages.schemas import InstallationDetails
from fleetprompt.packages.views import installation_details
from fleetprompt.schedules.local_time import zone_names
from fleetprompt.sessions.service import SignedIn
from fleetprompt.tenants.keys import Scope, at_least
from fleetprompt.vault.secret import Secret
from fleetprompt_api.auth import Platform, actor_of
from fleetprompt_api.console.forms import field, read_form
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router
from fleetprompt_api.console.page import render
from fleetprompt_api.console.settings_form import config_of, fields_of
from fleetprompt_api.outbound import sent_by
from fleetprompt_api.state import AppState

routes = page_router()

_ADDRESS = "/console/installations"
_ONE = "/installations/{installation_id}"
_SENT = 25
# What to do about each kind of trouble, in the order of the page's own forms.
ADVICE: Mapping[str, str] = {
    "auth": "Its access was refused. Connect it again with a new address or token.",
    "network": "The other side could not be reached. See that it is up, then check the connection.",
    "rate_limit": "The other side asked to wait. Nothing need be done; it goes on by itself.",
    "validation": "What it is set to cannot work. Correct its configuration, then run it.",
    "unknown": "Nobody knows whether the last message arrived. Settle it.",
}


@dataclass(frozen=True, slots=True)
class Can:
    """What this person may have this installation do."""

    run: bool
    test: bool
    configure: bool
    connect: dict[str, str]
    switch_off: bool
    switch_on: bool


@routes.api_route("/installations", methods=LOOKING)
async def read_installations(visitor: Visitor, platform: Platform) -> Response:
    """Every installation with its last success and its last trouble."""
    visitor.identity.require(Scope.PACKAGES_READ)
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        found = await service.list_installations(session)
    installed = {one.package for one in found if one.state != "failed"}
    return render(
        "installations.html",
        visitor=visitor,
        here="Packages",
        now=platform.clock(),
        installations=found,
        advice=ADVICE,
        titles={one.package: registry.get(one.package).name for one in found},
        offered=[one for slug, one in registry.registry().items() if slug not in installed]
        if _may_change(visitor)
        else [],
    )


@routes.api_route(_ONE, methods=LOOKING)
async def read_installation(
    installation_id: UUID, visitor: Visitor, platform: Platform, before: UUID | None = None
) -> Response:
    """One installation with what it sent."""
    return await _page(platform, visitor, installation_id, before=before)


@routes.post(f"{_ONE}/run")
async def run(installation_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """Run it now."""

    async def ask(session: AsyncSession, actor: Actor) -> None:
        await run_now(
            session,
            visitor.identity.tenant,
            installation_id,
            actor,
            platform.settings,
            platform.clock(),
        )

    return await _asked(platform, visitor, installation_id, ask)


@routes.post(f"{_ONE}/test-post")
async def test_post(installation_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """Post one line to see that it arrives."""

    async def ask(session: AsyncSession, actor: Actor) -> None:
        await post_test(session, visitor.identity.tenant, installation_id, actor, platform.settings)

    return await _asked(platform, visitor, installation_id, ask)


@routes.post("/installations")
async def install(request: Request, visitor: Visitor, platform: Platform) -> Response:
    """Install a package as it is; it is set and connected on its own page."""
    _require(visitor)
    slug = field(await read_form(request), "package")
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        _, installation = await service.install(
            session, visitor.identity.tenant, slug, {}, actor_of(visitor.identity)
        )
    await notify_directives(platform.database)
    return _to(installation.id)


@routes.post(f"{_ONE}/config")
async def configure(
    request: Request, installation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Set its options; what is wrong with them is told beside each, and nothing changed."""
    _require(visitor)
    sent = await read_form(request)
    try:
        async with platform.database.tenant(visitor.identity.tenant.schema) as session:
            found = await service.get_installation(session, installation_id)
            if found.config_checksum != field(sent, "seen"):
                raise ConflictError("Somebody has set it meanwhile; look at it and set it again.")
            manifest, connections = registry.get(found.package), service.connection_options(found)
            config = config_of(manifest, found.config, connections, sent)
            await service.configure(
                session,
                visitor.identity.tenant,
                installation_id,
                config,
                actor_of(visitor.identity),
            )
    except (ConflictError, InvalidError) as error:
        kept = sent if isinstance(error, InvalidError) else None
        return await _page(platform, visitor, installation_id, error=error, sent=kept)
    await notify_directives(platform.database)
    return _to(installation_id)


@routes.post(f"{_ONE}/switch")
async def switch(
    request: Request, installation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Switch it off or on."""
    to = field(await read_form(request), "to")

    async def ask(session: AsyncSession, actor: Actor) -> None:
        change = service.enable if to == "on" else service.disable
        await change(session, visitor.identity.tenant, installation_id, actor)

    return await _asked(platform, visitor, installation_id, ask)


@routes.post(f"{_ONE}/outbound-messages/{{message_id}}/settle")
async def settle(
    request: Request, installation_id: UUID, message_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Have something done about a message that nobody knows to have arrived."""
    action = field(await read_form(request), "action")
    if action not in get_args(Resolution):
        raise MalformedError("The form names nothing that can be done.")

    async def ask(session: AsyncSession, actor: Actor) -> None:
        installation = await service.get_installation(session, installation_id)
        operations = posting_operations_of(installation.package)
        if operations is None:
            raise ConflictError(f"{installation.package} posts nothing.")
        await operations.request_resolution(
            session,
            visitor.identity.tenant,
            installation,
            message_id,
            cast(Resolution, action),
            actor,
        )

    return await _asked(platform, visitor, installation_id, ask)


@routes.post(f"{_ONE}/check")
async def check(installation_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """Try its connections without posting anything."""
    _require(visitor)
    try:
        await credentials.check(
            platform.database,
            platform.vault,
            platform.outbound,
            visitor.identity.tenant,
            installation_id,
            actor_of(visitor.identity),
        )
    except ConflictError as error:
        return await _page(platform, visitor, installation_id, error=error)
    return _to(installation_id)


@routes.post(f"{_ONE}/connect")
async def connect(
    request: Request, installation_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Put a new address or token in the place of the one before, and try it."""
    _require(visitor)
    sent = await read_form(request)
    url, token = field(sent, "url").strip(), sent.get("token", "").strip()
    secret = Secret(json.dumps({"token": token, "url": url}) if token else url)
    try:
        await credentials.connect(
            platform.database,
            platform.vault,
            platform.outbound,
            platform.settings,
            visitor.identity.tenant,
            installation_id,
            secret,
            actor_of(visitor.identity),
            kind=field(sent, "kind"),
            clock=platform.clock,
        )
    except (InvalidError, ConflictError) as error:
        return await _page(platform, visitor, installation_id, error=error)
    return _to(installation_id)


def _require(visitor: SignedIn) -> None:
    visitor.identity.require(Scope.PACKAGES_WRITE, "admin")


def _may_change(visitor: SignedIn) -> bool:
    identity = visitor.identity
    return Scope.PACKAGES_WRITE in identity.scopes and at_least(identity.role, "admin")


def _to(installation_id: UUID) -> Response:
    return RedirectResponse(f"{_ADDRESS}/{installation_id}", 303)


async def _asked(
    platform: AppState,
    visitor: SignedIn,
    installation_id: UUID,
    ask: Callable[[AsyncSession, Actor], Coroutine[Any, Any, None]],
) -> Response:
    _require(visitor)
    try:
        async with platform.database.tenant(visitor.identity.tenant.schema) as session:
            await ask(session, actor_of(visitor.identity))
    except (ConflictError, InvalidError, RateLimitedError) as error:
        return await _page(platform, visitor, installation_id, error=error)
    await notify_directives(platform.database)
    return _to(installation_id)


async def _page(
    platform: AppState,
    visitor: SignedIn,
    installation_id: UUID,
    *,
    before: UUID | None = None,
    error: ConflictError | InvalidError | RateLimitedError | None = None,
    sent: Mapping[str, str] | None = None,
) -> Response:
    """The page; with ``sent``, its settings as somebody sent them and they were refused."""
    visitor.identity.require(Scope.PACKAGES_READ)
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        found = await installation_details(session, installation_id)
        connections = service.connection_options(
            await service.get_installation(session, installation_id)
        )
        messages = await sent_by(session, installation_id, before=before, limit=_SENT)
    manifest = registry.get(found.package)
    return render(
        "installation.html",
        visitor=visitor,
        status=error.status if error else 200,
        here="Packages",
        now=platform.clock(),
        installation=found,
        manifest=manifest,
        advice=ADVICE.get(found.last_error_kind or ""),
        can=_can(found) if _may_change(visitor) else None,
        choices=_choices,
        settings=fields_of(
            manifest, found.config, connections, sent=sent, errors=error.errors if error else ()
        ),
        refused=sent is not None,
        seen=registry.config_checksum(found.config),
        zones=sorted(zone_names()),
        sent=messages,
        sent_before=messages[-1].id if len(messages) == _SENT else None,
        error=error,
    )


def _can(found: InstallationDetails) -> Can:
    operations = operations_of(found.package)
    usable = found.state in service.INSTALLED
    posting = posting_operations_of(found.package) is not None
    kinds = connectables_of(operations) if operations is not None and usable else {}
    return Can(
        run=operations is not None and usable,
        test=posting and usable,
        configure=usable or found.state == "disabled",
        connect={kind: kind.replace("_", " ") for kind in kinds},
        switch_off=usable,
        switch_on=found.state == "disabled",
    )


def _choices(message: OutboundMessage) -> dict[str, str]:
    """What may be done about a message, as a form's value → words."""
    if message.state == "unknown":
        # Looking needs to know where it would be.
        look = {"look": "Look again"} if message.remote_place is not None else {}
        return {
            **look,
            "post_again": "Post again (it may then be there twice)",
            "give_up": "Give up",
        }
    if message.state in ("rejected", "retryable"):
        return {"post_again": "Post again"}
    return {}
