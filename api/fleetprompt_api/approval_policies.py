"""Which directive types need people's approval in a tenant, and on which terms."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from fleetprompt.directives.approvals.policy import MOST_APPROVALS, ApprovalPolicy
from fleetprompt.directives.approvals.renewal import change_terms
from fleetprompt.directives.approvals.terms import Terms, terms_of
from fleetprompt.directives.types import AnyDirectiveType
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import NotFoundError
from fleetprompt_api.auth import ApprovalsGovern, DirectivesRead, Platform, actor_of
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.state import AppState
from fleetprompt_api.wire import Links, Text, Wire

routes = router("approvals")

TypeName = Annotated[Text, Path(description="The directive type's name.", max_length=128)]
ApprovingRole = Literal["owner", "admin", "member"]


class ApprovalTerms(BaseModel):
    """The terms. Roles are named one by one: `owner` may approve only where it is among them."""

    model_config = ConfigDict(extra="forbid")

    required: bool
    roles: Annotated[frozenset[ApprovingRole], Field(min_length=1)]
    approvals: Annotated[int, Field(ge=1, le=MOST_APPROVALS)] = 1
    proposer_may_approve: bool = True
    expires_after_seconds: Annotated[int, Field(ge=60, le=30 * 24 * 3600)] = 3 * 24 * 3600


class ApprovalPolicyView(Wire):
    """The terms in force. `changed_by` is null while the tenant has none of its own."""

    directive_type: str
    required: bool
    roles: list[str]
    approvals: int
    proposer_may_approve: bool
    expires_after_seconds: int
    changed_by: str | None
    changed_at: datetime | None
    links: Links


@routes.get("/approval-policies/{directive_type}")
async def read_approval_policy(
    directive_type: TypeName, caller: DirectivesRead, platform: Platform
) -> ApprovalPolicyView:
    """The terms in force for a directive type."""
    kind = _kind(platform, directive_type)
    async with platform.database.tenant(caller.tenant.schema) as session:
        return _view(kind, await terms_of(session, kind.name, kind))


@routes.put("/approval-policies/{directive_type}", responses=problems(409))
async def change_approval_policy(
    directive_type: TypeName, new: ApprovalTerms, caller: ApprovalsGovern, platform: Platform
) -> ApprovalPolicyView:
    """Put the tenant's own terms in place. What waits is asked for anew; approvals given are void."""
    kind = _kind(platform, directive_type)
    policy = ApprovalPolicy(
        roles=frozenset(new.roles),
        approvals=new.approvals,
        proposer_may_approve=new.proposer_may_approve,
        expires_after_seconds=new.expires_after_seconds,
    )
    async with platform.database.tenant(caller.tenant.schema) as session:
        terms = await change_terms(
            session, kind, required=new.required, policy=policy, by=actor_of(caller)
        )
    await notify_directives(platform.database)  # of the notices
    return _view(kind, terms)


def _kind(platform: AppState, name: str) -> AnyDirectiveType:
    kind = platform.directive_types.get(name)
    if kind is None:
        raise NotFoundError("There is no such directive type.")
    return kind


def _view(kind: AnyDirectiveType, terms: Terms) -> ApprovalPolicyView:
    return ApprovalPolicyView(
        directive_type=kind.name,
        required=terms.required,
        **terms.policy.as_json(),
        changed_by=terms.changed_by,
        changed_at=terms.changed_at,
        links={"self": f"/api/v1/approval-policies/{kind.name}"},
    )
