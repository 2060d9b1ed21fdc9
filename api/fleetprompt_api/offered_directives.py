"""The registry of directive types: what may be asked for, by whom, and how it is worked off."""

from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt_api.auth import DirectivesRead, Platform
from fleetprompt_api.etag import unless_known
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Links, Listing, listing

routes = router("directives")


class RetryPolicyView(BaseModel):
    """Between attempts lies a random time between zero and a bound that doubles with each."""

    max_attempts: int
    first_bound_seconds: float
    longest_bound_seconds: float


class TypeApprovalTerms(BaseModel):
    """Terms that the type comes with."""

    roles: list[str]
    approvals: int
    proposer_may_approve: bool
    expires_after_seconds: int


class DirectiveTypeView(BaseModel):
    """A directive type. `params` is the JSON Schema of its params.

    `approval` is null where the type asks for none by itself; a tenant's own terms are at
    `links.approval_policy`. Only types with `over_http` are taken by `POST /api/v1/directives`.
    """

    name: str
    summary: str
    roles: list[str] = Field(description="Who may ask for it and cancel it, beside the platform.")
    target: Literal["platform", "connector"]
    over_http: bool
    timeout_seconds: float = Field(description="The longest that one attempt may take.")
    retry: RetryPolicyView
    concurrency: int | None = Field(description="Most attempts at once; null for no limit.")
    approval: TypeApprovalTerms | None
    params: dict[str, Any]
    links: Links


@routes.get(
    "/directive-types",
    response_model=Listing[DirectiveTypeView],
    responses={
        200: {"headers": {"ETag": {"schema": {"type": "string"}, "required": True}}},
        304: {"description": "`If-None-Match` names the list as it is."},
    },
)
async def list_directive_types(
    request: Request, caller: DirectivesRead, platform: Platform
) -> Response:
    """Every directive type, by name."""
    found = [_view(kind) for _, kind in sorted(platform.directive_types.items())]
    return unless_known(request, listing(request, found))


@cache
def _view(kind: AnyDirectiveType) -> DirectiveTypeView:
    links = {"approval_policy": f"/api/v1/approval-policies/{kind.name}"}
    if kind.over_http:
        links["request"] = "/api/v1/directives"
    return DirectiveTypeView(
        name=kind.name,
        summary=kind.summary,
        roles=sorted(kind.roles),
        target=kind.target,
        over_http=kind.over_http,
        timeout_seconds=kind.timeout,
        retry=RetryPolicyView(
            max_attempts=kind.retry.max_attempts,
            first_bound_seconds=kind.retry.first_bound,
            longest_bound_seconds=kind.retry.longest_bound,
        ),
        concurrency=kind.concurrency,
        approval=TypeApprovalTerms(**kind.approval.as_json()) if kind.approval else None,
        params=kind.params.model_json_schema(),
        links=links,
    )
