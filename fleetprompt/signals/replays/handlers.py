"""The directives that work replays off, in batches, each one transaction.

1. Lock the replay's row; stop if it has ended, if another directive works at it, or if this attempt has
   lost its lease.
2. Read the next signals behind the cursor and ask the handlers of installed packages.
3. Count, and in a live replay request what is new.
4. Move the cursor. What is killed at any point begins again at the last committed cursor.

After a minute the rest is left to a directive of type ``signals.replay.continue``, so that a long
replay keeps no worker to itself; between batches a replay rests as long as the last one took.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.actors import PLATFORM
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.models import Directive
from fleetprompt.directives.service import request_directive
from fleetprompt.directives.types import (
    AnyDirectiveType,
    DirectiveParams,
    DirectiveType,
    Failure,
    RetryPolicy,
    directive_types,
)
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import StaleLeaseError
from fleetprompt.executions.running import RunningExecution
from fleetprompt.packages.registry import registry
from fleetprompt.packages.signal_handlers import signal_handlers
from fleetprompt.signals.handlers import Handlers
from fleetprompt.signals.replays.models import OPEN_STATES, Replay
from fleetprompt.signals.replays.requests import (
    Tally,
    ask_handlers,
    installed_packages,
    request_all,
)
from fleetprompt.signals.replays.selection import Selection, measure, read_on
from fleetprompt.signals.replays.service import CONTINUE, REPLAY, ReplayParams, get_replay
from fleetprompt.tenants.service import Tenant

BATCH = 200  # signals
PART_SECONDS = 60.0
_TOLD_EVERY = 5.0  # seconds between lines of progress
_ATTEMPT_SECONDS = 180.0
_AT_ONCE = 2  # of each type, over all workers
_RETRY = RetryPolicy(max_attempts=10, first_bound=2.0, longest_bound=60.0)


class ContinueParams(DirectiveParams):
    """Which replay, and the number of this part of it."""

    replay_id: UUID
    part: int


@dataclass(frozen=True, slots=True)
class _Step:
    """Where the replay stands after one batch; ``more`` if this directive shall go on."""

    replay: Replay
    more: bool
    asked_for: int


@dataclass(frozen=True, slots=True)
class ReplayWork:
    """How replays are worked off; each seam may be another one in a test."""

    handlers: Callable[[], Handlers] = signal_handlers
    types: Callable[[], Mapping[str, AnyDirectiveType]] = directive_types
    batch: int = BATCH
    part_seconds: float = PART_SECONDS

    async def begin(self, context: HandlerContext, params: ReplayParams) -> dict[str, Any]:
        """Work off a replay from its cursor, which at first is its beginning."""
        faults = params.selection.faults(registry())
        if faults:  # only where an approver has edited it
            places = "; ".join(f"{at['pointer']} {at['detail']}" for at in faults)
            raise DirectiveFailed("validation", places)
        return await self._work(context, params.replay_id, params)

    async def go_on(self, context: HandlerContext, params: ContinueParams) -> dict[str, Any]:
        """Work off a further part of a replay."""
        return await self._work(context, params.replay_id, None)

    async def _work(
        self, context: HandlerContext, replay_id: UUID, first: ReplayParams | None
    ) -> dict[str, Any]:
        began = told = time.monotonic()
        while True:
            before = time.monotonic()
            last = before - began >= self.part_seconds
            async with context.database.tenant(context.tenant.schema) as session:
                step = await self._step(session, context, replay_id, first, last=last)
            if step.asked_for or not step.more:
                await notify_directives(context.database)
            now = time.monotonic()
            if not step.more or now - told >= _TOLD_EVERY:
                told = now
                await _tell(context.execution, step.replay)
            if not step.more:
                return {"replay_id": str(replay_id), "state": step.replay.state}
            await asyncio.sleep(now - before)

    async def _step(
        self,
        session: AsyncSession,
        context: HandlerContext,
        replay_id: UUID,
        first: ReplayParams | None,
        *,
        last: bool,
    ) -> _Step:
        replay = await get_replay(session, replay_id, lock=True)
        if replay.state not in OPEN_STATES or replay.directive_id != context.directive.id:
            return _Step(replay, more=False, asked_for=0)
        await _check_lease(session, context.directive)
        if first is not None and replay.state == "requested":
            await _start(session, replay, first)
        selection = Selection.model_validate(replay.selection)
        handlers = self.handlers()
        packages = await installed_packages(session) & handlers.packages
        if selection.package is not None:
            packages &= {selection.package}
        signals = (
            await read_on(session, replay, selection, limit=self.batch)
            if packages and replay.signals_selected
            else []
        )
        tally = Tally()
        asked = ask_handlers(handlers, packages, signals, tally)
        await request_all(session, context.tenant, replay, asked, self.types(), tally)
        replay.signals_read += len(signals)
        for name in ("would_request", "requested", "duplicates", "refused", "handlers_failed"):
            setattr(replay, name, getattr(replay, name) + getattr(tally, name))
        if len(signals) < self.batch:
            replay.state = "completed"
            replay.finished_at = func.clock_timestamp()
        else:
            replay.cursor_txid, replay.cursor_id = signals[-1].txid, signals[-1].id
            if last:
                await self._leave_the_rest(session, context.tenant, replay)
        await session.flush()
        await session.refresh(replay)
        more = replay.state == "running" and replay.directive_id == context.directive.id
        return _Step(replay, more, tally.requested)

    async def _leave_the_rest(self, session: AsyncSession, tenant: Tenant, replay: Replay) -> None:
        replay.part += 1
        directive, _ = await request_directive(
            session,
            tenant,
            CONTINUE,
            ContinueParams(replay_id=replay.id, part=replay.part),
            idempotency_key=f"dir:replay:{tenant.slug}:{replay.id}:{replay.part}",
            actor=PLATFORM,
            correlation_id=replay.correlation_id,
            causation_id=str(replay.id),
            types=self.types(),
        )
        replay.directive_id = directive.id

    def directive_types(self) -> tuple[AnyDirectiveType, ...]:
        """The directive types that work replays off so."""
        return (
            DirectiveType(
                REPLAY,
                "Asks the packages' handlers again about stored signals; muted unless `live`.",
                ReplayParams,
                self.begin,
                roles=frozenset({"owner"}),
                timeout=_ATTEMPT_SECONDS,
                concurrency=_AT_ONCE,
                retry=_RETRY,
                after_failure=_failed,
            ),
            DirectiveType(
                CONTINUE,
                "Goes on with a long replay; asked for by the platform alone.",
                ContinueParams,
                self.go_on,
                roles=frozenset(),
                timeout=_ATTEMPT_SECONDS,
                concurrency=_AT_ONCE,
                retry=_RETRY,
                after_failure=_failed,
            ),
        )


async def _start(session: AsyncSession, replay: Replay, params: ReplayParams) -> None:
    # What the directive says holds: people may have edited it before they approved it.
    replay.selection, replay.live = params.selection.as_json(), params.live
    replay.signals_selected, replay.cursor_txid = await measure(session, replay, params.selection)
    replay.state = "running"
    replay.started_at = func.clock_timestamp()
    await session.flush()


async def _check_lease(session: AsyncSession, directive: ClaimedDirective) -> None:
    held = await session.scalar(select(Directive.lease_token).where(Directive.id == directive.id))
    if held != directive.lease_token:
        raise StaleLeaseError("Another attempt works at this replay.")


async def _tell(execution: RunningExecution, replay: Replay) -> None:
    names = (
        *("signals_selected", "signals_read", "would_request", "requested"),
        *("duplicates", "refused", "handlers_failed", "part"),
    )
    what = "live" if replay.live else "muted"
    line = (
        f"{what} replay {replay.state}: {replay.signals_read} of {replay.signals_selected} signals"
    )
    await execution.log(
        "warning" if replay.handlers_failed or replay.refused else "info",
        line,
        replay_id=str(replay.id),
        **{name: getattr(replay, name) for name in names},
    )


async def _failed(
    session: AsyncSession,
    tenant: Tenant,
    directive: ClaimedDirective,
    params: ReplayParams | ContinueParams,
    failure: Failure,
) -> None:
    """Show on the replay that its directive came to a bad end or was called off."""
    await session.execute(
        update(Replay)
        .where(
            Replay.id == params.replay_id,
            Replay.directive_id == directive.id,
            Replay.state.in_(OPEN_STATES),
        )
        .values(
            state="cancelled" if failure.state == "cancelled" else "failed",
            error_kind=failure.error_kind,
            error_message=failure.message,
            finished_at=func.clock_timestamp(),
        )
    )


DIRECTIVE_TYPES = ReplayWork().directive_types()
