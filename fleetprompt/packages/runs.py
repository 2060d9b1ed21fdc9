"""Running an installation on demand, and its test posts, no oftener than the tenant may."""

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import Actor
from fleetprompt.directives.models import Directive
from fleetprompt.errors import ConflictError, RateLimitedError
from fleetprompt.executions.models import Execution
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import PostingOperations, operations_of, posting_operations_of
from fleetprompt.packages.service import INSTALLED, get_installation, require_administrator
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant

_HOUR = timedelta(hours=1)


async def run_now(
    session: AsyncSession,
    tenant: Tenant,
    installation_id: UUID,
    actor: Actor,
    settings: Settings,
    now: datetime,
) -> tuple[Directive, Execution]:
    """Ask for a run at once; the directive and the execution that will tell of it.

    At most ``manual_runs_per_hour`` in any hour: the installation's row is locked while they are
    counted, so that no number of clicks at once gets through (research/mattermost_digest.md, trap
    32). Beyond, RateLimitedError with the seconds until the next. Scheduled runs do not count.
    """
    require_administrator(actor)
    installation = await get_installation(session, installation_id, lock=True)
    operations = operations_of(installation.package)
    if operations is None:
        raise ConflictError(f"{installation.package} has nothing to run.")
    _check_state(installation)
    await _check_rate(session, installation_id, operations.run_directive, settings)
    return await operations.request_run(session, tenant, installation, actor, now)


async def post_test(
    session: AsyncSession, tenant: Tenant, installation_id: UUID, actor: Actor, settings: Settings
) -> tuple[Directive, Execution]:
    """Ask for a test post: as ``run_now``, under a count of its own."""
    installation, operations = await admit_test(session, installation_id, actor, settings)
    return await operations.request_test(session, tenant, installation, actor)


async def admit_test(
    session: AsyncSession, installation_id: UUID, actor: Actor, settings: Settings
) -> tuple[Installation, PostingOperations]:
    """The installation, its row locked, and its operations, if a test may be asked for now."""
    require_administrator(actor)
    installation = await get_installation(session, installation_id, lock=True)
    operations = posting_operations_of(installation.package)
    if operations is None:
        raise ConflictError(f"{installation.package} posts nothing.")
    _check_state(installation)
    await _check_rate(session, installation_id, operations.test_directive, settings)
    return installation, operations


def _check_state(installation: Installation) -> None:
    if installation.state not in INSTALLED:
        raise ConflictError(
            f"The installation is {installation.state}; it can be run once it is installed and on."
        )


async def _check_rate(
    session: AsyncSession, installation_id: UUID, directive_type: str, settings: Settings
) -> None:
    allowed = settings.manual_runs_per_hour
    # The statement's own time, not the transaction's: this one may have waited for the lock.
    now = func.clock_timestamp()
    recent = (
        await session.execute(
            select(Directive.created_at, now.label("now"))
            .where(
                Directive.type == directive_type,
                Directive.created_at > now - _HOUR,
                Directive.params["installation_id"].astext == str(installation_id),
                Directive.actor_role != "platform",
            )
            .order_by(Directive.created_at.desc())
        )
    ).all()
    if len(recent) < allowed:
        return
    if allowed == 0:
        raise RateLimitedError("Running on demand is switched off here.")
    makes_room = recent[allowed - 1]
    wait = (makes_room.created_at + _HOUR - makes_room.now).total_seconds()
    raise RateLimitedError(
        f"{allowed} runs on demand in an hour are allowed.", retry_after=max(1.0, wait)
    )
