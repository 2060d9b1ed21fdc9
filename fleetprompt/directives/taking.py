"""Taking due directives into attempts: the one way for the platform's workers and for connectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.attempt import record_end
from fleetprompt.directives.queue import LOST_WORKER, ClaimedDirective, Settlement, claim
from fleetprompt.directives.types import PLATFORM_TARGET, AnyDirectiveType
from fleetprompt.executions import service as executions
from fleetprompt.tenants.service import Tenant

_GIVEN_UP = Settlement("unknown", error_kind="unknown", error_message=LOST_WORKER)


@dataclass(frozen=True, slots=True)
class Taken:
    """``executions`` has the execution of each claimed directive; ``ended`` need no more work."""

    claimed: list[ClaimedDirective]
    executions: dict[UUID, UUID]
    ended: list[tuple[ClaimedDirective, Settlement]]


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
    running = await executions.start_for_directives(
        session, found.claimed, dagster_run_id=dagster_run_id
    )
    ended = [*((lost, _GIVEN_UP) for lost in found.given_up), *found.refused]
    for directive, end in ended:
        kind = types.get(directive.type)
        await record_end(session, tenant, directive, end, kind=kind, running=None)
    return Taken(found.claimed, running, ended)
