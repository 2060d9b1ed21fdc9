"""What happened: everything under one id, its causes and consequences, in one order."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import get_args

from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import NotFoundError
from fleetprompt.sessions.service import SignedIn
from fleetprompt.tenants.keys import Scope
from fleetprompt.timeline import service
from fleetprompt.timeline.schemas import Entry, Kind, Timeline
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router
from fleetprompt_api.console.page import render
from fleetprompt_api.console.people import People, people_in
from fleetprompt_api.state import AppState

routes = page_router()

KINDS: tuple[str, ...] = get_args(Kind)
_ID_LIMIT = 512  # as the API's


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is shown. ``after`` counts seconds from the first; ``state`` gives its look."""

    entry: Entry
    title: str
    after: float
    state: str
    pages: dict[str, str]


@routes.api_route("/timeline", methods=LOOKING)
async def search(
    visitor: Visitor,
    platform: Platform,
    request: Request,
    id: str = "",  # noqa: A002 - the form's word
) -> Response:
    """The form "what happened to …?", and the answer where an id is given."""
    return await _page(visitor, platform, request, id.strip())


@routes.api_route("/timeline/{correlation_id:path}", methods=LOOKING)
async def read_timeline(
    correlation_id: str, visitor: Visitor, platform: Platform, request: Request
) -> Response:
    """The same at an address of its own."""
    return await _page(visitor, platform, request, correlation_id)


async def _page(visitor: SignedIn, platform: AppState, request: Request, asked: str) -> Response:
    identity = visitor.identity
    identity.require(Scope.SIGNALS_READ)
    chosen = [kind for kind in request.query_params.getlist("kind") if kind in KINDS]
    found: Timeline | None = None
    if asked and len(asked) <= _ID_LIMIT and "\x00" not in asked:
        try:
            async with platform.database.tenant(identity.tenant.schema) as session:
                found = await service.what_happened(
                    session, asked, dagster_url=platform.settings.dagster_base_url
                )
        except NotFoundError:
            found = None
    entries = found.entries if found else []
    people = await people_in(platform.database, identity.tenant, [one.title for one in entries])
    kept = [one for one in entries if not chosen or one.kind in chosen]
    return render(
        "timeline.html",
        visitor=visitor,
        status=200 if found or not asked else 404,
        here="Timeline",
        now=platform.clock(),
        asked=asked,
        found=found,
        days=_by_day(_lines(kept, entries, people)),
        kinds=[kind for kind in KINDS if any(one.kind == kind for one in entries)],
        chosen=chosen,
        hidden=len(entries) - len(kept),
    )


def _lines(kept: Iterable[Entry], entries: list[Entry], people: People) -> list[Line]:
    return [
        Line(
            entry=one,
            title=people.in_text(one.title),
            after=(one.at - entries[0].at).total_seconds(),
            state=_state(one),
            pages=_pages(one),
        )
        for one in kept
    ]


def _by_day(lines: list[Line]) -> list[tuple[date, list[Line]]]:
    return [(day, list(group)) for day, group in groupby(lines, lambda one: one.entry.at.date())]


def _state(entry: Entry) -> str:
    """The word that gives an entry its look, none for what is neither good nor bad."""
    detail = entry.detail
    if entry.kind == "transition":
        return str(detail["to"])
    if entry.kind == "log":
        return str(detail["level"])
    if "decision" in detail:
        return "approved" if detail["decision"] == "approve" else "rejected"
    # An object has an entry for each of its moments; its state is told by the last of them.
    state = str(detail.get("state", ""))
    return state if entry.kind != "directive" and f" {state}" in entry.title else ""


def _pages(entry: Entry) -> dict[str, str]:
    """Where to read on: the console's own pages, and Dagster's."""
    detail, pages = entry.detail, {}
    if entry.kind == "approval":
        pages["approval"] = f"/console/approvals/{detail.get('approval_id', entry.id)}"
    directive = entry.id if entry.kind == "directive" else detail.get("directive_id")
    if directive:
        pages["directive"] = f"/console/directives/{directive}"
    if "run" in entry.links:
        pages["Dagster run"] = entry.links["run"]
    if entry.kind in ("signal", "execution"):
        pages[entry.kind] = f"/console/{entry.kind}s/{entry.id}"
    return pages
