"""Taking due directives into attempts: the one way for the platform's workers and for connectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.ending import AttemptEnd, record_ends
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.queue import End, SortedOut, sort_out, start
from fleetprompt.directives.types import PLATFORM_TARGET, AnyDirectiveType
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
    """Begin attempts at up to ``limit`` due directives of the tenant, or at those of ``ids`` that are due.

    Most are pending and need no approval, and start with one statement; what it leaves is sorted out.
    """
    begin = partial(
        start,
        session,
        owner=owner,
        lease_seconds=lease_seconds,
        target=target,
        types=types,
        dagster_run_id=dagster_run_id,
    )
    begun = await begin(ids) if ids else {}
    ended: list[End] = []
    rest = None if ids is None else [one for one in ids if one not in begun]
    if rest != []:
        found = await sort_out(
            session, limit=limit, owner=owner, target=target, types=types, ids=rest
        )
        await _record(session, tenant, found, types)
        ended = found.ended
        if found.startable:
            begun |= await begin(found.startable, sorted_out=True)
    claimed = [directive for directive, _ in begun.values()]
    events.directives_claimed(claimed, target)
    return Taken(claimed, {one: execution for one, (_, execution) in begun.items()}, ended)


async def take_back(
    session: AsyncSession,
    tenant: Tenant,
    connector_id: str,
    ids: Sequence[UUID],
    *,
    owner: str,
    types: Mapping[str, AnyDirectiveType],
) -> list[End]:
    """Sort out what a connector left behind, without beginning an attempt; those that ended."""
    found = await sort_out(
        session, limit=len(ids), owner=owner, target=connector_id, types=types, ids=ids
    )
    await _record(session, tenant, found, types)
    return found.ended


async def _record(
    session: AsyncSession,
    tenant: Tenant,
    found: SortedOut,
    types: Mapping[str, AnyDirectiveType],
) -> None:
    over = {directive.id for directive, _ in found.ended}
    lost = [end for end in found.lost if end[0].id not in over]
    ends = [AttemptEnd(*end) for end in (*lost, *found.ended)]
    await record_ends(session, tenant, ends, types)
