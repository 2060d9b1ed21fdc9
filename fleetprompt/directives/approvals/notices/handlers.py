"""The directive ``approval.notify``: one notice, posted once, and only while there is something to say.

An attempt may die at any point and be followed by another; the ledger decides whether the message
may still be sent. Whether the approval still waits is asked last in the transaction that claims it.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import model_validator
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.approvals.models import Approval, ApprovalDecision
from fleetprompt.directives.approvals.notices.limit import free_at, summarize_at, what_waits
from fleetprompt.directives.approvals.notices.posting import Letter, lease_of, open_webhook, post
from fleetprompt.directives.approvals.notices.setting import connection_of, read_notices
from fleetprompt.directives.approvals.notices.text import render_notice, render_summary
from fleetprompt.directives.approvals.terms import NOTIFY
from fleetprompt.directives.failures import DirectiveFailed
from fleetprompt.directives.handling import HandlerContext
from fleetprompt.directives.types import DirectiveParams, DirectiveType, directive_types
from fleetprompt.errors import NotFoundError
from fleetprompt.outbound import ledger
from fleetprompt.packages.models import Installation
from fleetprompt.tenants.members import get_member

NOT_WANTED = "notices are switched off"
NOT_CONNECTED = (
    "The installation that notices are posted with is not connected to Mattermost. Connect it again, "
    "or choose another one."
)


class NoticeParams(DirectiveParams):
    """Which notice; ``approval_id`` of every one but the summary."""

    notice: Literal["opened", "reminder", "summary"]
    approval_id: UUID | None = None

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if (self.approval_id is None) != (self.notice == "summary"):
            raise ValueError("approval_id belongs to every notice but the summary")
        return self


@dataclass(frozen=True, slots=True)
class _Unsaid:
    """Why nothing is posted."""

    reason: str


async def notify(context: HandlerContext, params: NoticeParams) -> dict[str, Any]:
    """Post the notice unless it is out of date; the result says whether it was, and why not."""
    text = await (_notice(context, params) if params.approval_id else _summary(context))
    letter = text if isinstance(text, _Unsaid) else await _addressed(context, params, text)
    if isinstance(letter, _Unsaid):
        return {"posted": False, "reason": letter.reason}
    url = await open_webhook(context, letter)
    async with context.database.tenant(context.tenant.schema) as session:
        entry = await _claimed(context, session, params, letter)
    if isinstance(entry, _Unsaid):
        return {"posted": False, "reason": entry.reason}
    lease = lease_of(entry)
    if lease is not None:
        await post(context, letter, url, lease)
    return {"posted": True, "destination": letter.destination, "sha256": letter.sha256}


async def _notice(context: HandlerContext, params: NoticeParams) -> str | _Unsaid:
    async with context.database.tenant(context.tenant.schema) as session:
        approval = await _waiting(session, params.approval_id)
        if isinstance(approval, _Unsaid):
            return approval
        approved = await session.scalar(
            select(func.count()).where(
                ApprovalDecision.approval_id == approval.id, ApprovalDecision.decision == "approve"
            )
        )
    return render_notice(
        approval,
        directive_types().get(approval.directive_type),
        reminder=params.notice == "reminder",
        proposer=await _name(context, approval.proposed_by),
        approved=approved or 0,
        page=f"{_console(context)}/{approval.id}",
    )


async def _summary(context: HandlerContext) -> str | _Unsaid:
    async with context.database.tenant(context.tenant.schema) as session:
        found = await what_waits(session)
    if found is None:
        return _Unsaid("nothing waits")
    return render_summary(found.waiting, found.untold, found.first_expiry, _console(context))


async def _addressed(context: HandlerContext, params: NoticeParams, text: str) -> Letter | _Unsaid:
    async with context.database.tenant(context.tenant.schema) as session:
        setting = await read_notices(session)
        if setting is None or not setting.enabled:
            return _Unsaid(NOT_WANTED)
        installation = await session.get(Installation, setting.installation_id)
        if installation is None:  # removed just now, and the setting with it
            return _Unsaid(NOT_WANTED)
        connection = await connection_of(session, installation, setting.channel)
        if connection is None:
            raise DirectiveFailed("auth", NOT_CONNECTED)
        key = await _dedupe_key(context, session, params)
    return Letter(
        dedupe_key=key,
        text=text,
        channel=setting.channel,
        credential_id=connection.credential_id,
        destination=connection.destination,
    )


async def _dedupe_key(context: HandlerContext, session: AsyncSession, params: NoticeParams) -> str:
    """The same message is the same key, whichever directive asks for it."""
    if params.approval_id is None:
        return f"approval_notice:summary:{context.directive.id}"
    approval = await session.get_one(Approval, params.approval_id)
    key = f"approval_notice:{approval.id}:{approval.version}"
    return f"{key}:reminder" if params.notice == "reminder" else key


async def _claimed(
    context: HandlerContext, session: AsyncSession, params: NoticeParams, letter: Letter
) -> ledger.Claimed | _Unsaid:
    """The ledger's word, behind the lock that the tenant's notices take one after the other."""
    setting = await read_notices(session, lock=True)
    if setting is None or not setting.enabled:
        return _Unsaid(NOT_WANTED)
    if params.approval_id is not None:
        approval = await _waiting(session, params.approval_id)
        if isinstance(approval, _Unsaid):
            return approval
        if await ledger.find(session, letter.dedupe_key) is None:
            due_at = await free_at(session, setting.most_per_hour)
            if due_at is not None:
                await summarize_at(session, context.tenant, due_at)
                return _Unsaid(f"{setting.most_per_hour} were posted within the hour: summed up")
    return await ledger.plan_and_claim(session, letter.intent(context))


async def _waiting(session: AsyncSession, approval_id: UUID | None) -> Approval | _Unsaid:
    found = await session.get(Approval, approval_id, populate_existing=True)
    if found is None:
        return _Unsaid("the approval is gone")
    if found.state != "waiting":
        return _Unsaid(f"the approval is {found.state}")
    if await session.scalar(select(func.clock_timestamp() >= found.expires_at)):
        return _Unsaid("the approval has expired")
    return found


async def _name(context: HandlerContext, actor: str) -> str:
    """A person's name or address where the actor is a member, else the actor's id."""
    if not actor.startswith("user:"):
        return actor
    try:
        async with context.database.platform() as session:
            member = await get_member(session, context.tenant, UUID(actor.removeprefix("user:")))
    except (NotFoundError, ValueError):
        return actor
    return member.name or member.email


def _console(context: HandlerContext) -> str:
    return f"{context.settings.api_url}/console/approvals"


DIRECTIVE_TYPES = (
    DirectiveType(
        NOTIFY,
        "Tells people in Mattermost that something waits for their approval.",
        NoticeParams,
        notify,
        timeout=120.0,
    ),
)
