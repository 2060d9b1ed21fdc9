"""Replays: asking the packages' handlers again about stored signals; for owners."""

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Depends
from pydantic import ConfigDict, Field
from starlette.requests import Request

from fleetprompt.directives.wake import notify_directives
from fleetprompt.signals.replays import service
from fleetprompt.signals.replays.models import Replay, ReplayFinding
from fleetprompt.signals.replays.selection import Selection
from fleetprompt.tenants.key_service import Identity
from fleetprompt.tenants.keys import Scope
from fleetprompt_api.auth import Allowed, Platform, actor_of
from fleetprompt_api.idempotency import IdempotencyKey, Ids, once
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Cursor, Limit, Links, Page, Wire, page, read_cursor

routes = router("replays")

ReplaysRead = Annotated[Identity, Depends(Allowed(Scope.SIGNALS_READ, "owner"))]
ReplaysWrite = Annotated[Identity, Depends(Allowed(Scope.PACKAGES_WRITE, "owner"))]
State = Literal["requested", "running", "completed", "failed", "cancelled"]


class NewReplay(Selection):
    """Which signals, and whether what the handlers ask for shall be requested.

    `occurred_from` or `inserted_from` is needed. Ranges are half open. Only signals that are stored
    when this is asked are read, and none of the platform's own.
    """

    live: Annotated[
        bool,
        Field(
            description=(
                "False: muted; tells what would be requested and requests nothing. True: requests "
                "what has no directive under its idempotency key yet."
            )
        ),
    ] = False


class ReplayView(Wire):
    """A replay with its counts so far; `outcome` says them in a sentence.

    `signals_selected` is counted when it starts. `part` counts the directives that worked at it;
    `directive_id` is the one that does now, or did last.
    """

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    state: State
    live: bool
    selection: dict[str, Any]
    asked_by: str
    correlation_id: str
    directive_id: UUID
    signals_selected: int | None
    signals_read: int
    would_request: int
    requested: int
    duplicates: int
    refused: int
    handlers_failed: int
    part: int
    error_kind: str | None
    error_message: str | None
    asked_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str = ""
    links: Links = Field(default_factory=dict)


class FindingView(Wire):
    """A directive that a replay requested, or would; or why something was not.

    `params` are those of a muted finding, where they have at most 4 KiB; a requested directive has
    its own page.
    """

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    outcome: service.Outcome
    signal_id: UUID
    package: str
    directive_type: str | None
    idempotency_key: str | None
    params: dict[str, Any] | None
    directive_id: UUID | None
    detail: str | None
    links: Links = Field(default_factory=dict)


@routes.post("/replays", status_code=202)
async def ask_for_replay(
    new: NewReplay,
    caller: ReplaysWrite,
    platform: Platform,
    idempotency_key: IdempotencyKey = None,
) -> ReplayView:
    """Ask the packages' handlers again about a range of stored signals, muted unless `live`."""
    selection = Selection.model_validate(new.model_dump(exclude={"live"}))
    asked = {"operation": "replay", "selection": selection.as_json(), "live": new.live}
    async with platform.database.tenant(caller.tenant.schema) as session:

        async def act() -> Ids:
            replay = await service.ask_for_replay(
                session, caller.tenant, selection, live=new.live, actor=actor_of(caller)
            )
            return {"replay_id": str(replay.id), "directive_id": str(replay.directive_id)}

        ids = await once(session, caller, idempotency_key, asked, act)
        view = _view(await service.get_replay(session, UUID(ids["replay_id"])))
    await notify_directives(platform.database)
    return view


@routes.get("/replays")
async def list_replays(
    request: Request,
    caller: ReplaysRead,
    platform: Platform,
    state: State | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ReplayView]:
    """Replays, newest first."""
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.list_replays(session, state=state, before=before, limit=limit)
    return page(request, found, limit, lambda one: one.id, _view)


@routes.get("/replays/{replay_id}")
async def read_replay(replay_id: UUID, caller: ReplaysRead, platform: Platform) -> ReplayView:
    """One replay and how far it is."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        return _view(await service.get_replay(session, replay_id))


@routes.get("/replays/{replay_id}/findings")
async def list_replay_findings(
    request: Request,
    replay_id: UUID,
    caller: ReplaysRead,
    platform: Platform,
    outcome: service.Outcome | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[FindingView]:
    """What a replay requested or would request, all of it; what was refused or failed, the first 100.

    The latest first. What exists already is counted only.
    """
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        await service.get_replay(session, replay_id)
        found = await service.list_findings(
            session, replay_id, outcome=outcome, before=before, limit=limit
        )
    return page(request, found, limit, lambda one: one.id, _finding)


@routes.post("/replays/{replay_id}/cancel", responses=problems(409))
async def cancel_replay(replay_id: UUID, caller: ReplaysWrite, platform: Platform) -> ReplayView:
    """Stop a replay; what it has requested stays."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.cancel_replay(session, caller.tenant, replay_id, actor_of(caller))
        return _view(found)


def _view(replay: Replay) -> ReplayView:
    view = ReplayView.model_validate(replay)
    own = f"/api/v1/replays/{replay.id}"
    view.outcome = service.outcome_of(replay)
    view.links = {
        "self": own,
        "findings": f"{own}/findings",
        "directive": f"/api/v1/directives/{replay.directive_id}",
        "executions": f"/api/v1/executions?correlation_id={quote(replay.correlation_id, safe=':')}",
        "timeline": f"/api/v1/timeline/{quote(replay.correlation_id, safe=':')}",
    }
    return view


def _finding(finding: ReplayFinding) -> FindingView:
    view = FindingView.model_validate(finding)
    view.links = {"signal": f"/api/v1/signals/{finding.signal_id}"}
    if finding.directive_id is not None:
        view.links["directive"] = f"/api/v1/directives/{finding.directive_id}"
    return view
