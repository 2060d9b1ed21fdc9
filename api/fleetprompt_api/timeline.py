"""What happened under a correlation id."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Path, Query
from pydantic import Field

from fleetprompt.timeline import schemas, service
from fleetprompt_api.auth import Platform, SignalsRead
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Links, Text

routes = router("timeline")


class TimelineView(schemas.Timeline):
    """What happened, the earliest first."""

    links: Links = Field(default_factory=dict)


@routes.get("/timeline/{correlation_id:path}")
async def read_timeline(
    correlation_id: Annotated[
        Text,
        Path(
            description=(
                "A correlation id, as it is (it may hold `:` and `/`), or the id of a signal, a "
                "directive, an execution or a replay."
            )
        ),
    ],
    caller: SignalsRead,
    platform: Platform,
    limit: Annotated[
        int, Query(ge=1, le=service.MOST_ENTRIES, description="Most entries in the answer.")
    ] = service.ENTRIES,
) -> TimelineView:
    """Everything of one correlation id, of what caused it and of what it caused, in one order.

    Signals, directives with their transitions and approvals, executions with their logs, messages
    sent and Dagster runs. `more` counts what the limits left out.
    """
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.what_happened(
            session, correlation_id, limit=limit, dagster_url=platform.settings.dagster_base_url
        )
    own = f"/api/v1/timeline/{quote(correlation_id, safe=':/')}"
    return TimelineView(**found.model_dump(), links={"self": own})
