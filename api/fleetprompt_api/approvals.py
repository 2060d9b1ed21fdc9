"""Approvals: what waits for people's word, and deciding about it. No GET changes anything."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request

from fleetprompt.directives.approvals import service
from fleetprompt.directives.approvals.checks import Decider
from fleetprompt.directives.approvals.models import Approval, ApprovalDecision
from fleetprompt.directives.wake import notify_directives
from fleetprompt.tenants.key_service import Identity
from fleetprompt_api.auth import ApprovalsDecide, DirectivesRead, Platform, actor_of
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Cursor, Limit, Links, Page, Text, Wire, page, read_cursor

routes = router("approvals")

State = Literal[
    "waiting", "approved", "rejected", "expired", "superseded", "invalidated", "withdrawn"
]
Hash = Annotated[
    str,
    Field(
        pattern=r"^[0-9a-f]{64}$",
        description="`action_sha256` of the approval as it was shown to the person who decides.",
    ),
]


class DecisionView(Wire):
    """What one person decided."""

    model_config = ConfigDict(from_attributes=True)

    decision: Literal["approve", "reject"]
    actor: str
    actor_role: str
    action_sha256: str
    reason: str | None
    at: datetime


class ApprovalView(Wire):
    """One version of a directive's action, the terms it was asked for under, and the decisions.

    `action_json` is the RFC 8785 canonical JSON whose SHA-256 is `action_sha256`; `action` is the
    same, parsed.
    """

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    directive_id: UUID
    directive_type: str
    version: int
    state: State
    action: dict[str, Any]
    action_json: str
    action_sha256: str
    rendering_version: int
    policy: dict[str, Any]
    proposed_by: str
    expires_at: datetime
    created_at: datetime
    settled_at: datetime | None
    settled_by: str | None
    reason: str | None
    decisions: list[DecisionView]
    links: Links


class Approve(BaseModel):
    """Yes to exactly this."""

    model_config = ConfigDict(extra="forbid")

    hash: Hash


class Reject(Approve):
    """No to this, and why."""

    reason: Text


class Edit(BaseModel):
    """The whole new params of the directive."""

    model_config = ConfigDict(extra="forbid")

    params: dict[str, Any]


@routes.get("/approvals")
async def list_approvals(
    request: Request,
    caller: DirectivesRead,
    platform: Platform,
    state: State | None = None,
    directive_id: Annotated[UUID | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ApprovalView]:
    """Approvals, newest first."""
    before = read_cursor(cursor)
    async with platform.database.tenant(caller.tenant.schema) as session:
        found = await service.list_approvals(
            session, state=state, directive_id=directive_id, before=before, limit=limit
        )
        decided = await service.decisions(session, [one.id for one in found])
    return page(request, found, limit, lambda one: one.id, lambda one: _view(one, decided[one.id]))


@routes.get("/approvals/{approval_id}")
async def read_approval(
    approval_id: UUID, caller: DirectivesRead, platform: Platform
) -> ApprovalView:
    """One version as it is shown to people. Looking decides nothing."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        return await _shown(session, await service.get_approval(session, approval_id))


@routes.post("/approvals/{approval_id}/approve", responses=problems(409))
async def approve_approval(
    approval_id: UUID, yes: Approve, caller: ApprovalsDecide, platform: Platform
) -> ApprovalView:
    """Approve exactly what was shown; with the last approval that is needed, the directive may run."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        approval = await service.approve(session, approval_id, yes.hash, _decider(caller))
        view = await _shown(session, approval)
    await notify_directives(platform.database)
    return view


@routes.post("/approvals/{approval_id}/reject", responses=problems(409))
async def reject_approval(
    approval_id: UUID, no: Reject, caller: ApprovalsDecide, platform: Platform
) -> ApprovalView:
    """Reject what was shown; the directive is cancelled."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        approval = await service.reject(
            session, caller.tenant, approval_id, no.hash, no.reason, _decider(caller)
        )
        return await _shown(session, approval)


@routes.post("/approvals/{approval_id}/edit", status_code=201, responses=problems(409))
async def edit_approval(
    approval_id: UUID, new: Edit, caller: ApprovalsDecide, platform: Platform
) -> ApprovalView:
    """Put other params in place: answers the new version, which nobody has approved yet."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        renewed = await service.edit(session, approval_id, new.params, _decider(caller))
        view = await _shown(session, renewed)
    await notify_directives(platform.database)  # of the notice
    return view


def _decider(caller: Identity) -> Decider:
    return Decider(actor_of(caller), caller.user_id)


async def _shown(session: AsyncSession, approval: Approval) -> ApprovalView:
    decided = await service.decisions(session, [approval.id])
    return _view(approval, decided[approval.id])


def _view(approval: Approval, decided: list[ApprovalDecision]) -> ApprovalView:
    own = f"/api/v1/approvals/{approval.id}"
    return ApprovalView(
        id=approval.id,
        directive_id=approval.directive_id,
        directive_type=approval.directive_type,
        version=approval.version,
        state=approval.state,
        action=json.loads(approval.action),
        action_json=approval.action,
        action_sha256=approval.action_sha256,
        rendering_version=approval.rendering_version,
        policy=approval.policy,
        proposed_by=approval.proposed_by,
        expires_at=approval.expires_at,
        created_at=approval.created_at,
        settled_at=approval.settled_at,
        settled_by=approval.settled_by,
        reason=approval.reason,
        decisions=[DecisionView.model_validate(one) for one in decided],
        links={
            "self": own,
            "directive": f"/api/v1/directives/{approval.directive_id}",
            "versions": f"/api/v1/approvals?directive_id={approval.directive_id}",
            "policy": f"/api/v1/approval-policies/{approval.directive_type}",
            "signals": f"/api/v1/signals?subject_type=approval&subject_id={approval.id}",
        },
    )
