"""Taking due directives into attempts: the one way for the platform's workers and for connectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.ending import AttemptEnd, record_ends
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.queue import End, claim, rescue
from fleetprompt.directives.types import PLATFORM_TARGET, AnyDirectiveType
from fleetprompt.executions import service as executions
from fleetprompt.telemetry import events
from fleetprompt.tenants.service import Tenant


@dataclass(frozen=True, slots=True)
class Taken:
    """``executions`` has the execution of each claimed directive; ``ended`` need no more work."""

    claimed: list[ClaimedDirective]
    executions: dict[UUID, UUID]
    ended: list[End]


async def take(
    session: AsyncSession,
    tenant: Tenant,
    *,
    limit: int,
    owner: str,
    lease_seconds: float,
    types: Mapping[str, AnyDirectiveType],
    ids: Sequence[UUID] | None = None,
    target: str = PLATFORM_TARGET,
    dagster_run_id: str | None = None,
) -> Taken:
    """``queue.claim``, with the executions of what was claimed and what follows from what was not."""
    found = await claim(
        session,
        limit=limit,
        owner=owner,
        lease_seconds=lease_seconds,
        ids=ids,
        target=target,
        dagster_run_id=dagster_run_id,
        types=types,
    )
    events.directives_claimed(found.claimed, target)
    ends = [AttemptEnd(*end) for end in (*found.lost, *found.ended)]
    await record_ends(session, tenant, ends, types)
    running = await executions.start_for_directives(
        session, found.claimed, dagster_run_id=dagster_run_id
    )
    return Taken(found.claimed, running, found.ended)


async def take_back(
    session: AsyncSession,
    tenant: Tenant,
    connector_id: str,
    ids: Sequence[UUID],
    *,
    owner: str,
    types: Mapping[str, AnyDirectiveType],
) -> list[End]:
    """``queue.rescue`` of what a connector left behind; those that ended need no more work."""
    found = await rescue(session, ids, owner=owner, target=connector_id, types=types)
    ends = [AttemptEnd(*end) for end in (*found.lost, *found.ended)]
    await record_ends(session, tenant, ends, types)
    return found.ended
