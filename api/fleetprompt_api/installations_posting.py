"""An installation that posts: checking its connections, test posts, settling what nobody knows."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import ConflictError
from fleetprompt.packages import credentials
from fleetprompt.packages.operations import posting_operations_of
from fleetprompt.packages.runs import post_test
from fleetprompt.packages.service import get_installation
from fleetprompt_api.auth import PackagesWrite, Platform, actor_of
from fleetprompt_api.idempotency import IdempotencyKey, Ids, once
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.requested import Requested, answer
from fleetprompt_api.routing import router

routes = router("installations")


class Finding(BaseModel):
    """One connection as it was found; ``message`` says in plain words what is wrong and what to do."""

    kind: str
    label: str
    state: Literal["connected", "failing", "unverified"]
    error_kind: str | None
    message: str | None


class Checked(BaseModel):
    """What a look at the installation's connections gave; nothing was posted."""

    ok: bool
    findings: list[Finding]


class Settling(BaseModel):
    """What to do about a message: look for it, post it again (it may then be there twice), give it up."""

    model_config = ConfigDict(extra="forbid")

    action: Literal["look", "post_again", "give_up"]


@routes.post("/installations/{installation_id}/check", responses=problems(409))
async def check_installation(
    installation_id: UUID, caller: PackagesWrite, platform: Platform
) -> Checked:
    """Try the connections that it posts with, without posting anything."""
    found = await credentials.check(
        platform.database,
        platform.vault,
        platform.outbound,
        caller.tenant,
        installation_id,
        actor_of(caller),
    )
    return Checked(
        ok=all(one.verification.state == "connected" for one in found),
        findings=[
            Finding(
                kind=one.kind,
                label=one.label,
                state=one.verification.state,
                error_kind=one.verification.error_kind,
                message=one.verification.message,
            )
            for one in found
        ],
    )


@routes.post(
    "/installations/{installation_id}/test-post", status_code=202, responses=problems(409, 422, 429)
)
async def ask_for_test_post(
    installation_id: UUID,
    caller: PackagesWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Requested:
    """Post one line to the configured channel; at most as often an hour as *Run now*."""
    request = {"operation": "test-post", "installation_id": str(installation_id)}
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            directive, execution = await post_test(
                session, caller.tenant, installation_id, actor_of(caller), platform.settings
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


@routes.post(
    "/installations/{installation_id}/outbound-messages/{message_id}/settle",
    status_code=202,
    responses=problems(409, 422),
)
async def settle_outbound_message(
    installation_id: UUID,
    message_id: UUID,
    new: Settling,
    caller: PackagesWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Requested:
    """Ask for something to be done about a message that is unknown or was not posted."""
    request = {"operation": "settle", "message_id": str(message_id), "action": new.action}
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            installation = await get_installation(session, installation_id)
            operations = posting_operations_of(installation.package)
            if operations is None:
                raise ConflictError(f"{installation.package} posts nothing.")
            directive = await operations.request_resolution(
                session, caller.tenant, installation, message_id, new.action, actor_of(caller)
            )
            return {"directive_id": str(directive.id), "installation_id": str(installation_id)}

        ids = await once(session, caller, idempotency_key, request, act)
        requested = await answer(session, ids)
    await notify_directives(platform.database)
    return requested
