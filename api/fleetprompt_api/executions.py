"""Executions: work that ran or is to run, with what it said."""

from typing import Annotated, Literal
from urllib.parse import quote
from uuid import UUID

from fastapi import Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.errors import NotFoundError
from fleetprompt.executions import reported, schemas, service
from fleetprompt.executions.models import Execution
from fleetprompt_api.auth import ExecutionsRead, ExecutionsWrite, Platform
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Cursor, Limit, Links, Page, Text, Wire, page, read_cursor

routes = router("executions")

State = Literal["requested", "running", "completed", "failed", "cancelled"]
_LOG_LINES = 500


class ExecutionView(Wire, schemas.ExecutionView):
    """An execution; costs in US dollars."""

    links: Links = Field(default_factory=dict)

    @classmethod
    def of(cls, execution: Execution | schemas.ExecutionView) -> "ExecutionView":
        """As answered."""
        view = cls.model_validate(execution, from_attributes=True)
        view.links = {"self": f"/api/v1/executions/{execution.id}"}
        if execution.directive_id is not None:
            view.links["directive"] = f"/api/v1/directives/{execution.directive_id}"
        if execution.installation_id is not None:
            view.links["installation"] = f"/api/v1/installations/{execution.installation_id}"
        if execution.correlation_id is not None:
            chain = quote(execution.correlation_id, safe=":/")
            view.links["timeline"] = f"/api/v1/timeline/{chain}"
        return view


class LogLine(Wire, schemas.ExecutionLogView):
    """One line of an execution's log."""


class ExecutionDetails(ExecutionView):
    """An execution with its log; ``next_log`` is where to go on reading, null at the end."""

    logs: list[LogLine]
    next_log: int | None


@routes.get("/executions")
async def list_executions(
    request: Request,
    caller: ExecutionsRead,
    platform: Platform,
    kind: Text | None = None,
    state: State | None = None,
    installation_id: UUID | None = None,
    directive_id: UUID | None = None,
    correlation_id: Text | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ExecutionView]:
    """Executions, newest first: the platform's own, and those that agents report."""
    before = read_cursor(cursor)
    found: list[Execution | schemas.ExecutionView] = []
    async with platform.database.tenant(caller.tenant.schema) as session:
        found += await service.list_executions(
            session,
            kind=kind,
            state=state,
            installation_id=installation_id,
            directive_id=directive_id,
            correlation_id=correlation_id,
            before=before,
            limit=limit,
        )
        if installation_id is None and directive_id is None:
            found += await reported.list_reported(
                session,
                kind=kind,
                state=state,
                correlation_id=correlation_id,
                before=before,
                limit=limit,
            )
    found = sorted(found, key=lambda one: one.id, reverse=True)[:limit]
    return page(request, found, limit, lambda one: one.id, ExecutionView.of)


@routes.get("/executions/{execution_id}")
async def read_execution(
    execution_id: UUID,
    caller: ExecutionsRead,
    platform: Platform,
    log_after: Annotated[
        int, Query(ge=0, lt=2**63, description="Only lines behind this one, by its id.")
    ] = 0,
) -> ExecutionDetails:
    """One execution with its log."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        execution: Execution | schemas.ExecutionView
        try:
            execution = await service.get(session, execution_id)
        except NotFoundError:
            execution = await reported.get(session, execution_id)
        lines = await service.logs(session, execution_id, after=log_after, limit=_LOG_LINES)
    return ExecutionDetails(
        **ExecutionView.of(execution).model_dump(),
        logs=[LogLine.model_validate(line) for line in lines],
        next_log=lines[-1].id if len(lines) == _LOG_LINES else None,
    )


@routes.post(
    "/executions",
    status_code=201,
    responses={
        200: {"model": ExecutionView, "description": "It was reported before, the same."},
        **problems(409),
    },
)
async def report_execution(
    told: schemas.ExecutionReport, caller: ExecutionsWrite, platform: Platform, response: Response
) -> ExecutionView:
    """Report an execution of an agent outside the platform: that it started, or how it ended.

    Written as signals `agent.execution.started`, `completed` and `failed`, which an agent may send
    itself as well. The same key is the same execution; saying the same again changes nothing (200).
    """
    async with platform.database.tenant(caller.tenant.schema) as session:
        execution, new = await reported.report(
            session, told, reporter=caller.actor, now=platform.clock()
        )
    response.status_code = 201 if new else 200
    return ExecutionView.of(execution)
