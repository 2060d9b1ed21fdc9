"""From installations to slots, and from due slots to directives; what runs is the package's affair."""

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.directives.approvals.lapse import expire_due
from fleetprompt.directives.approvals.renewal import renew_outdated
from fleetprompt.errors import InvalidError, NotFoundError
from fleetprompt.outbound.ledger import give_up_lost
from fleetprompt.packages.models import Installation
from fleetprompt.packages.operations import operations_of
from fleetprompt.packages.service import INSTALLED, list_installations
from fleetprompt.schedules.models import ScheduleSlot
from fleetprompt.schedules.slots import (
    Schedule,
    close_abandoned,
    fill,
    is_missed,
    mark_requested,
    replan,
    settle,
)
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant, active_tenants

logger = logging.getLogger(__name__)


async def plan_slots(session: AsyncSession, installation: Installation, now: datetime) -> int:
    """Make the slots to come anew, as state and configuration say; how many were made."""
    return await replan(session, installation.id, _schedule_of(installation), now)


async def keep_filled(database: Database, now: datetime) -> int:
    """Make the slots that are missing ahead, for every installation of every tenant; how many.

    On the way, slots that an ended directive left open are closed, and messages whose sender died
    while sending become ``unknown``, what nobody approved in time is rejected, and what waits under
    terms that are no longer in force is asked for anew. What PostgreSQL refuses for one tenant, whose
    tables may lie behind this version, is raised when all others are done.
    """
    async with database.platform() as session:
        tenants = await active_tenants(session)
    made, refused = 0, None
    for tenant in tenants:
        try:
            made += await _keep_tenant(database, tenant, now)
        except NotFoundError:
            continue  # deleted just now
        except DBAPIError as error:
            logger.exception("a tenant was passed over", extra={"tenant": tenant.slug})
            refused = error
    if refused is not None:
        raise refused
    return made


async def _keep_tenant(database: Database, tenant: Tenant, now: datetime) -> int:
    made = 0
    async with database.tenant(tenant.schema) as session:
        await close_abandoned(session)
        await give_up_lost(session)
        await expire_due(session, tenant, now)
        await renew_outdated(session)
        for installation in await list_installations(session):
            schedule = _usable_schedule(installation)
            if schedule is not None:
                made += await fill(session, installation.id, schedule, now)
    return made


async def request_slots(
    session: AsyncSession,
    tenant: Tenant,
    slots: Sequence[ScheduleSlot],
    now: datetime,
    settings: Settings,
) -> list[UUID]:
    """Ask for the runs of a tenant's due slots in its transaction; the directives' ids.

    One that is later than the grace is ``skipped_missed``, one of an installation that is switched
    off, paused or gone ``skipped_paused``; both stay visible and neither is caught up. Asking twice
    gives the same directives, whatever became of the slot meanwhile.
    """
    requested: list[UUID] = []
    for slot in slots:
        if slot.state != "planned":
            if slot.directive_id is not None:
                requested.append(slot.directive_id)
            continue
        installation = await session.get(Installation, slot.installation_id)
        if installation is None or _usable_schedule(installation) is None:
            await settle(session, slot, "skipped_paused")
        elif is_missed(slot, now, settings.digest_grace_hours):
            await settle(session, slot, "skipped_missed")
        elif (operations := operations_of(installation.package)) is not None:
            directive = await operations.request_scheduled(session, tenant, installation, slot)
            await mark_requested(session, slot, directive.id)
            requested.append(directive.id)
    return requested


def _schedule_of(installation: Installation) -> Schedule | None:
    operations = operations_of(installation.package)
    if operations is None or installation.state not in INSTALLED:
        return None
    return operations.schedule(installation.config)


def _usable_schedule(installation: Installation) -> Schedule | None:
    """The schedule, or None where the package is gone or its configuration no longer fits it.

    One such installation must not stop the planning for all others.
    """
    try:
        return _schedule_of(installation)
    except (NotFoundError, InvalidError) as error:
        logger.warning(
            "an installation is not scheduled: %s",
            error.detail,
            extra={"installation_id": str(installation.id)},
        )
        return None
