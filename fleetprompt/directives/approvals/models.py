"""Tables of approvals, decisions and the tenant's policies, in each tenant's schema."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from fleetprompt.db.base import SetByDatabase, TenantBase
from fleetprompt.directives.models import Directive


class TenantApprovalPolicy(TenantBase):
    """The tenant's own terms for a directive type."""

    __tablename__ = "approval_policies"
    directive_type: Mapped[str] = mapped_column(primary_key=True)
    required: Mapped[bool]
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    approvals: Mapped[int]
    proposer_may_approve: Mapped[bool]
    expires_after_seconds: Mapped[int]
    changed_by: Mapped[str]
    changed_at: Mapped[SetByDatabase]


class Approval(TenantBase):
    """One version of a directive's action as it was shown; only its state can change.

    ``action`` is canonical JSON and ``action_sha256`` the hash of those bytes, in hexadecimal.
    """

    __tablename__ = "approvals"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    directive_id: Mapped[UUID] = mapped_column(ForeignKey(Directive.id, ondelete="CASCADE"))
    directive_type: Mapped[str]
    version: Mapped[int]
    action: Mapped[str]
    action_sha256: Mapped[str]
    rendering_version: Mapped[int]
    policy: Mapped[dict[str, Any]]
    policy_sha256: Mapped[str]
    proposed_by: Mapped[str]
    state: Mapped[str]
    expires_at: Mapped[datetime]
    created_at: Mapped[SetByDatabase]
    settled_at: Mapped[datetime | None]
    settled_by: Mapped[str | None]
    reason: Mapped[str | None]


class ApprovalDecision(TenantBase):
    """What one person decided about one version; never changed."""

    __tablename__ = "approval_decisions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    approval_id: Mapped[UUID] = mapped_column(ForeignKey(Approval.id, ondelete="CASCADE"))
    decision: Mapped[str]
    actor: Mapped[str]
    user_id: Mapped[UUID]
    actor_role: Mapped[str]
    action_sha256: Mapped[str]
    reason: Mapped[str | None]
    at: Mapped[SetByDatabase]
