"""Asking for replays, reading them and calling them off."""

import contextlib
from collections.abc import Mapping
from typing import Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives import service as directives
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import AnyDirectiveType, DirectiveParams, find_type
from fleetprompt.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.packages.registry import registry
from fleetprompt.signals.replays.models import OPEN_STATES, Replay, ReplayFinding
from fleetprompt.signals.replays.selection import Selection
from fleetprompt.tenants.service import Tenant

REPLAY = "signals.replay"
CONTINUE = "signals.replay.continue"
MOST_AT_ONCE = 200
Outcome = Literal["would_request", "requested", "refused", "handler_failed"]


class ReplayParams(DirectiveParams):
    """The whole of a replay, so that who approves it sees what it is."""

    replay_id: UUID
    selection: Selection
    live: bool = False


async def ask_for_replay(
    session: AsyncSession,
    tenant: Tenant,
    selection: Selection,
    *,
    live: bool,
    actor: Actor,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Replay:
    """A new replay, worked off by the directive ``signals.replay``; for owners.

    It is about the signals that are committed now. InvalidError with pointers where the selection
    cannot be meant, ForbiddenError for any role but the owner's. Call ``notify_directives`` after
    the commit.
    """
    faults = selection.faults(registry())
    if faults:
        raise InvalidError("This replay cannot be meant.", errors=faults)
    replay_id = new_id()
    correlation_id = f"replay:{tenant.slug}:{replay_id}"
    directive, _ = await request_directive(
        session,
        tenant,
        REPLAY,
        {"replay_id": str(replay_id), "selection": selection.as_json(), "live": live},
        idempotency_key=f"dir:replay:{tenant.slug}:{replay_id}",
        actor=actor,
        correlation_id=correlation_id,
        causation_id=str(replay_id),
        types=types,
    )
    replay = Replay(
        id=replay_id,
        live=live,
        selection=selection.as_json(),
        asked_by=actor.id,
        correlation_id=correlation_id,
        directive_id=directive.id,
    )
    session.add(replay)
    await session.flush()
    await session.refresh(replay)
    return replay


async def get_replay(session: AsyncSession, replay_id: UUID, *, lock: bool = False) -> Replay:
    """The tenant's replay of this id, as it stands now; NotFoundError otherwise."""
    found = await session.get(Replay, replay_id, with_for_update=lock, populate_existing=True)
    if found is None:
        raise NotFoundError(f"There is no replay {replay_id}.")
    return found


async def list_replays(
    session: AsyncSession, *, state: str | None = None, before: UUID | None = None, limit: int = 50
) -> list[Replay]:
    """Replays, newest first; ``before`` is the last id of the page before."""
    query = select(Replay).order_by(Replay.id.desc()).limit(min(limit, MOST_AT_ONCE))
    if state is not None:
        query = query.where(Replay.state == state)
    if before is not None:
        query = query.where(Replay.id < before)
    return list(await session.scalars(query))


async def list_findings(
    session: AsyncSession,
    replay_id: UUID,
    *,
    outcome: Outcome | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[ReplayFinding]:
    """What a replay found, the latest first; ``before`` is the last id of the page before."""
    query = (
        select(ReplayFinding)
        .where(ReplayFinding.replay_id == replay_id)
        .order_by(ReplayFinding.id.desc())
        .limit(min(limit, MOST_AT_ONCE))
    )
    if outcome is not None:
        query = query.where(ReplayFinding.outcome == outcome)
    if before is not None:
        query = query.where(ReplayFinding.id < before)
    return list(await session.scalars(query))


async def cancel_replay(
    session: AsyncSession, tenant: Tenant, replay_id: UUID, actor: Actor
) -> Replay:
    """Stop a replay; what it has requested stays. One that has ended otherwise is a ConflictError.

    For those who may ask for one; ForbiddenError otherwise. The directive is called off before the
    replay's row is locked, the order in which an attempt's end does it, so that the two never wait
    for each other.
    """
    if not find_type(REPLAY).allows(actor.role):
        raise ForbiddenError(f"The role {actor.role} may not cancel replays.")
    while True:
        replay = await get_replay(session, replay_id)
        if replay.state == "cancelled":
            return replay
        if replay.state not in OPEN_STATES:
            raise ConflictError(f"Replay {replay_id} is {replay.state} and cannot be cancelled.")
        worked_by = replay.directive_id
        # Its later parts are the platform's own. One that has just ended has left the rest to another.
        with contextlib.suppress(ConflictError):
            await directives.cancel(session, tenant, worked_by, Actor(actor.id, "platform"))
        replay = await get_replay(session, replay_id, lock=True)
        if replay.directive_id == worked_by and replay.state in (*OPEN_STATES, "cancelled"):
            replay.state = "cancelled"
            replay.finished_at = func.clock_timestamp()
            replay.error_kind = None
            replay.error_message = f"cancelled by {actor.id}"
            await session.flush()
            await session.refresh(replay)
            return replay


def outcome_of(replay: Replay) -> str:
    """What came of a replay, or stands so far, in one sentence."""
    if replay.state == "requested":
        return "Waits for a worker, or for an approval."
    if replay.signals_selected == 0:
        return "No signal that is stored fits this selection; nothing was asked of any handler."
    if replay.signals_read == 0 and replay.state == "completed":
        return (
            f"{replay.signals_selected} signals fit, but no installed package has a handler to ask."
        )
    asked = (
        f"{replay.requested} directives were requested"
        if replay.live
        else f"{replay.would_request} directives would be requested"
    )
    return (
        f"{replay.signals_read} of {replay.signals_selected} signals read: {asked}, "
        f"{replay.duplicates} exist already, {replay.refused} refused, "
        f"{replay.handlers_failed} failures of handlers."
    )
