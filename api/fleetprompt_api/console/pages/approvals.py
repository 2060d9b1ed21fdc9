"""Approvals: what waits for people's word, exactly what it is, and deciding about it.

Every decision is a form that names the hash of what was shown, so that nobody decides about a text
that changed meanwhile (docs/decisions/approvals.md).
"""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fleetprompt.directives import service as directives
from fleetprompt.directives.approvals import service
from fleetprompt.directives.approvals.checks import Decider
from fleetprompt.directives.approvals.models import Approval, ApprovalDecision
from fleetprompt.directives.approvals.policy import ApprovalPolicy
from fleetprompt.directives.approvals.release import standing_approvals
from fleetprompt.directives.models import Directive
from fleetprompt.directives.types import directive_types
from fleetprompt.directives.wake import notify_directives
from fleetprompt.errors import ConflictError, FleetPromptError, InvalidError
from fleetprompt.sessions.service import SignedIn
from fleetprompt.tenants.keys import Scope, at_least
from fleetprompt_api.auth import Platform, actor_of
from fleetprompt_api.console.actions import Parameter, ShownAction, shown_action
from fleetprompt_api.console.forms import field, read_form
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router, problem_page
from fleetprompt_api.console.page import render
from fleetprompt_api.console.people import people_in
from fleetprompt_api.state import AppState

routes = page_router()

_PAGE = 50
_PARAM = "param:"  # before the name of a field that holds a param


@dataclass(frozen=True, slots=True)
class ShownApproval:
    """Everything that the page of one approval tells."""

    approval: Approval
    directive: Directive
    action: ShownAction
    policy: ApprovalPolicy
    decisions: list[ApprovalDecision]
    standing: int
    versions: list[Approval]


@routes.api_route("/approvals", methods=LOOKING)
async def read_approvals(
    visitor: Visitor, platform: Platform, show: str = "waiting", before: UUID | None = None
) -> Response:
    """What waits, or everything that ever did, newest first."""
    identity = visitor.identity
    identity.require(Scope.DIRECTIVES_READ)
    state = "waiting" if show != "all" else None
    async with platform.database.tenant(identity.tenant.schema) as session:
        found = await service.list_approvals(session, state=state, before=before, limit=_PAGE)
    people = await people_in(platform.database, identity.tenant, [one.proposed_by for one in found])
    return render(
        "approvals.html",
        visitor=visitor,
        here="Approvals",
        now=platform.clock(),
        approvals=found,
        people=people,
        show="all" if state is None else "waiting",
        older=found[-1].id if len(found) == _PAGE else None,
    )


@routes.api_route("/approvals/{approval_id}", methods=LOOKING)
async def read_approval(approval_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """What exactly would be done, why, on which terms, and the forms to decide."""
    return await _page(platform, visitor, approval_id)


@routes.post("/approvals/{approval_id}/approve")
async def approve(
    request: Request, approval_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Yes to exactly what was shown."""
    decider = _decider(visitor)
    sent = await read_form(request)
    try:
        async with platform.database.tenant(visitor.identity.tenant.schema) as session:
            await service.approve(session, approval_id, field(sent, "hash"), decider)
    except ConflictError as error:
        return await _changed(request, platform, visitor, approval_id, error)
    await notify_directives(platform.database)
    return _to(approval_id)


@routes.post("/approvals/{approval_id}/reject")
async def reject(
    request: Request, approval_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """No to what was shown, and why."""
    decider = _decider(visitor)
    sent = await read_form(request)
    reason = field(sent, "reason").strip()
    try:
        if not reason:
            raise InvalidError(
                "Say why, so that whoever asked knows what to do.",
                errors=[{"pointer": "/reason", "detail": "is empty"}],
            )
        async with platform.database.tenant(visitor.identity.tenant.schema) as session:
            await service.reject(
                session,
                visitor.identity.tenant,
                approval_id,
                field(sent, "hash"),
                reason,
                decider,
            )
    except InvalidError as error:
        return await _page(platform, visitor, approval_id, error=error, reason=reason)
    except ConflictError as error:
        return await _changed(request, platform, visitor, approval_id, error)
    return _to(approval_id)


@routes.post("/approvals/{approval_id}/edit")
async def edit(
    request: Request, approval_id: UUID, visitor: Visitor, platform: Platform
) -> Response:
    """Put other params in place, as a new version that nobody has approved yet."""
    decider = _decider(visitor)
    sent = await read_form(request)
    typed = {
        name.removeprefix(_PARAM): text for name, text in sent.items() if name.startswith(_PARAM)
    }
    try:
        async with platform.database.tenant(visitor.identity.tenant.schema) as session:
            approval = await service.get_approval(session, approval_id)
            if field(sent, "hash") != approval.action_sha256:
                raise ConflictError("What you edited is not what this version says.")
            params = _edited(json.loads(approval.action)["params"], typed)
            renewed = await service.edit(session, approval_id, params, decider)
    except InvalidError as error:
        return await _page(platform, visitor, approval_id, error=error, typed=typed)
    except ConflictError as error:
        return await _changed(request, platform, visitor, approval_id, error)
    return _to(renewed.id)


def _decider(visitor: SignedIn) -> Decider:
    visitor.identity.require(Scope.APPROVALS_DECIDE, "member")
    return Decider(actor_of(visitor.identity), visitor.user_id)


def _to(approval_id: UUID) -> Response:
    return RedirectResponse(f"/console/approvals/{approval_id}", 303)


def _edited(shown: dict[str, Any], typed: dict[str, str]) -> dict[str, Any]:
    """The params with what was typed in place: texts as they are, everything else read as JSON."""
    params = dict(shown)
    errors = []
    for name, text in typed.items():
        if isinstance(shown.get(name), str):
            params[name] = text
            continue
        try:
            params[name] = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            errors.append({"pointer": f"/params/{name}", "detail": "is not valid JSON"})
    if errors:
        raise InvalidError("Some fields could not be read.", errors=errors)
    return params


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


async def _page(
    platform: AppState,
    visitor: SignedIn,
    approval_id: UUID,
    *,
    error: InvalidError | None = None,
    typed: dict[str, str] | None = None,
    reason: str = "",
) -> Response:
    tenant = visitor.identity.tenant
    visitor.identity.require(Scope.DIRECTIVES_READ)
    async with platform.database.tenant(tenant.schema) as session:
        shown = await _shown(session, approval_id)
    named = [
        shown.approval.proposed_by,
        shown.approval.settled_by,
        shown.directive.actor,
        *(one.actor for one in shown.decisions),
        *(one.proposed_by for one in shown.versions),
    ]
    return render(
        "approval.html",
        visitor=visitor,
        status=error.status if error else 200,
        here="Approvals",
        now=platform.clock(),
        shown=shown,
        exact=shown.approval.action,
        people=await people_in(platform.database, tenant, named),
        may_not_decide=_why_not_decide(visitor, shown),
        may_edit=_may_edit(visitor, shown),
        fields=[_field(one, typed or {}) for one in shown.action.parameters],
        param=_PARAM,
        error=error,
        editing=typed is not None,
        reason=reason,
    )


async def _shown(session: AsyncSession, approval_id: UUID) -> ShownApproval:
    approval = await service.get_approval(session, approval_id)
    directive = await directives.get(session, approval.directive_id)
    policy = ApprovalPolicy.from_json(approval.policy)
    action = json.loads(approval.action)
    return ShownApproval(
        approval=approval,
        directive=directive,
        action=await shown_action(session, action["type"], action["target"], action["params"]),
        policy=policy,
        decisions=(await service.decisions(session, [approval.id]))[approval.id],
        standing=await standing_approvals(session, approval, policy, directive),
        versions=await service.list_approvals(session, directive_id=directive.id),
    )


def _field(parameter: Parameter, typed: dict[str, str]) -> tuple[Parameter, str]:
    """A param and the text of its field: what was typed, else what is shown."""
    text = parameter.value if parameter.is_text else json.dumps(parameter.value, ensure_ascii=False)
    return parameter, typed.get(parameter.name, text)


def _why_not_decide(visitor: SignedIn, shown: ShownApproval) -> str | None:
    """Why this person is offered no decision, None where they are; deciding checks it all again."""
    identity, policy = visitor.identity, shown.policy
    if Scope.APPROVALS_DECIDE not in identity.scopes or not at_least(identity.role, "member"):
        return f"Your role ({identity.role}) may look and not decide."
    if identity.role not in policy.roles:
        return f"Only {_any_of(policy)} may decide about this; your role is {identity.role}."
    if any(one.user_id == visitor.user_id and one.decision == "approve" for one in shown.decisions):
        return "You have approved this."
    return None


def _may_edit(visitor: SignedIn, shown: ShownApproval) -> bool:
    kind = directive_types().get(shown.action.type)
    allowed = kind is not None and visitor.identity.role in kind.roles
    return allowed and Scope.APPROVALS_DECIDE in visitor.identity.scopes


def _any_of(policy: ApprovalPolicy) -> str:
    return " or ".join(sorted(policy.roles))


async def _changed(
    request: Request,
    platform: AppState,
    visitor: SignedIn,
    approval_id: UUID,
    error: FleetPromptError,
) -> Response:
    """Nothing was decided, and where the newest version is."""
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        approval = await service.get_approval(session, approval_id)
        newest = (await service.list_approvals(session, directive_id=approval.directive_id))[0]
    return problem_page(
        request,
        error,
        title="Nothing was decided",
        links={
            f"See version {newest.version}, the newest": f"/console/approvals/{newest.id}",
            "See the directive": f"/console/directives/{approval.directive_id}",
        },
    )
