"""The e-mail digest's test: a few words to active admins, and to nobody else."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import NotFoundError
from fleetprompt.packages.email_daily_digest.audience import refuse_strangers
from fleetprompt.packages.email_daily_digest.requests import request_test
from fleetprompt.packages.models import Installation
from fleetprompt.packages.runs import admit_test
from fleetprompt_api.auth import PackagesWrite, Platform, actor_of
from fleetprompt_api.idempotency import IdempotencyKey, Ids, once
from fleetprompt_api.members import EmailAddress
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.requested import Requested, answer
from fleetprompt_api.routing import router

routes = router("installations")

SLUG = "email_daily_digest"


class TestEmail(BaseModel):
    """Which active admins get it; left out, all of them."""

    __test__ = False  # not a test, whatever its name

    model_config = ConfigDict(extra="forbid")

    to: Annotated[list[EmailAddress], Field(min_length=1, max_length=200)] | None = None


@routes.post("/digest/test-email", status_code=202, responses=problems(404, 409, 422, 429))
async def send_test_email(
    new: TestEmail,
    caller: PackagesWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> Requested:
    """Ask for a test e-mail; at most as often an hour as *Run now*.

    An address that is not an active owner's or admin's is 422, and whoever is none any more when it
    is sent gets nothing. How it went is in the execution, by class and in our own words.
    """
    if new.to is not None:
        await refuse_strangers(platform.database, caller.tenant, new.to)
    request = {"operation": "test-email", "to": new.to}
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            found = await session.scalar(
                select(Installation.id).where(Installation.package == SLUG)
            )
            if found is None:
                raise NotFoundError(f"{SLUG} is not installed.")
            installation, _ = await admit_test(session, found, actor_of(caller), platform.settings)
            directive, execution = await request_test(
                session, caller.tenant, installation, actor_of(caller), new.to
            )
            return {
                "directive_id": str(directive.id),
                "installation_id": str(installation.id),
                "execution_id": str(execution.id),
            }

        ids = await once(session, caller, idempotency_key, request, act)
        requested = await answer(session, ids)
    await notify_directives(platform.database)
    return requested
