"""Asking for directives, reading them and calling them off."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy import case, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from fleetprompt import secrets
from fleetprompt.directives.actors import Actor
from fleetprompt.directives.approvals.action import action_of
from fleetprompt.directives.approvals.asking import ask_for_approval, first_action, withdraw
from fleetprompt.directives.approvals.models import TenantApprovalPolicy
from fleetprompt.directives.approvals.terms import terms_of
from fleetprompt.directives.ending import AttemptEnd, record_ends
from fleetprompt.directives.leases import Settlement, no_attempt
from fleetprompt.directives.models import Directive, DirectiveTransition
from fleetprompt.directives.types import (
    PLATFORM_TARGET,
    AnyDirectiveType,
    DirectiveParams,
    directive_types,
    find_type,
)
from fleetprompt.errors import (
    ConflictError,
    ForbiddenError,
    IdempotencyMismatchError,
    InvalidError,
    NotFoundError,
    SecretFoundError,
)
from fleetprompt.ids import new_id
from fleetprompt.telemetry import tracing
from fleetprompt.tenants.keys import fits_connector_id
from fleetprompt.tenants.service import Tenant

KEY_LIMIT = 512
MOST_AT_ONCE = 200
_CANCELLABLE = ("requested", "awaiting_approval", "pending", "running")


async def request_directive(
    session: AsyncSession,
    tenant: Tenant,
    kind: str,
    params: Mapping[str, Any] | DirectiveParams,
    *,
    idempotency_key: str,
    actor: Actor,
    correlation_id: str | None = None,
    causation_id: str | None = None,
    available_at: datetime | None = None,
    expires_at: datetime | None = None,
    priority: int = 0,
    target: str | None = None,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> tuple[Directive, bool]:
    """The directive of this idempotency key, and whether this call made it.

    Safe against any number of equal calls at once: the unique key lets one insert through and the
    others wait for it and read it. The same key with another type or other params is an
    IdempotencyMismatchError, params against the type's model an InvalidError with pointers, an
    actor without the role a ForbiddenError. Higher ``priority`` goes first. Call
    ``notify_directives`` after the commit to have it started at once. A type that needs approval, by
    nature or by the tenant's terms, waits in ``awaiting_approval``. ``target`` is the id of the
    connector that shall do it, for types that connectors work off and for those alone.
    """
    found = find_type(kind, types)
    if not found.allows(actor.role):
        raise ForbiddenError(
            f"{kind} may be asked for by: {', '.join(sorted(found.roles))}; this is {actor.role}."
        )
    if not 0 < len(idempotency_key) <= KEY_LIMIT or "\x00" in idempotency_key:
        raise InvalidError(
            "This idempotency key cannot be used.",
            errors=[{"pointer": "/idempotency_key", "detail": f"1 to {KEY_LIMIT} characters"}],
        )
    tracing.note_correlation(correlation_id)
    target = _check_target(found, target)
    checked = check_params(found, params)
    made = await session.scalar(
        insert(Directive)
        .values(
            id=new_id(),
            type=kind,
            params=checked,
            idempotency_key=idempotency_key,
            state=_first_state(found),
            actor=actor.id,
            actor_role=actor.role,
            changed_by=actor.id,
            correlation_id=correlation_id,
            causation_id=causation_id,
            target=target,
            priority=priority,
            max_attempts=found.retry.max_attempts,
            available_at=available_at or func.now(),
            expires_at=expires_at,
        )
        .on_conflict_do_nothing(index_elements=[Directive.idempotency_key])
        .returning(Directive)
    )
    if made is not None:
        if target != PLATFORM_TARGET and await session.scalar(_REVOKED, {"id": target}):
            raise InvalidError(
                "This connector's key was revoked; nobody would ever do it.",
                errors=[{"pointer": "/target", "detail": "a connector that is not revoked"}],
            )
        if made.state == "awaiting_approval":
            terms = await terms_of(session, kind, found)
            await ask_for_approval(session, made, terms.policy, proposed_by=actor.id)
        return made, True
    existing = (
        await session.scalars(select(Directive).where(Directive.idempotency_key == idempotency_key))
    ).one()
    same = (existing.type, existing.target) == (kind, target)
    if not same or not await _asked_with(session, existing, checked):
        raise IdempotencyMismatchError(
            f"The key belongs to directive {existing.id} of type {existing.type!r}, which was asked "
            "for with other content. Use a new key for a new request.",
            errors=[{"pointer": "/idempotency_key", "detail": "was used for something else"}],
        )
    return existing, False


# Connectors whose keys people made by hand have no row.
_REVOKED = text("SELECT 1 FROM connectors WHERE id::text = :id AND state = 'revoked'")


def _check_target(kind: AnyDirectiveType, target: str | None) -> str:
    if kind.target == PLATFORM_TARGET:
        if target is not None:
            raise InvalidError(
                f"{kind.name} is the platform's own work.",
                errors=[
                    {"pointer": "/target", "detail": "names a connector where none is asked for"}
                ],
            )
        return PLATFORM_TARGET
    if target is None or not fits_connector_id(target):
        raise InvalidError(
            f"{kind.name} is a connector's work.",
            errors=[{"pointer": "/target", "detail": "the id of the connector that shall do it"}],
        )
    return target


def _first_state(kind: AnyDirectiveType) -> ColumnElement[str]:
    """Decided by the insert itself, so that asking costs no further look at the tenant's terms."""
    if kind.approval is not None:
        return literal("awaiting_approval")
    own = select(TenantApprovalPolicy.directive_type).where(
        TenantApprovalPolicy.directive_type == kind.name, TenantApprovalPolicy.required
    )
    return case((own.exists(), "awaiting_approval"), else_="pending")


async def _asked_with(session: AsyncSession, existing: Directive, params: dict[str, Any]) -> bool:
    """Whether a directive was asked for with these params, which an edit may have replaced."""
    if existing.params == params:
        return True
    asked = Directive(type=existing.type, params=params, target=existing.target)
    if existing.action_sha256 is not None:
        return existing.action_sha256 == action_of(asked).sha256
    first = await first_action(session, existing.id)
    return first is not None and first == action_of(asked).text


def check_params(
    kind: AnyDirectiveType, params: Mapping[str, Any] | DirectiveParams
) -> dict[str, Any]:
    """Params as they are stored; InvalidError or SecretFoundError with pointers below ``/params``."""
    given = params.model_dump() if isinstance(params, DirectiveParams) else dict(params)
    try:
        checked: dict[str, Any] = kind.params.model_validate(given).model_dump(mode="json")
    except ValidationError as error:
        raise InvalidError(
            f"The params do not fit {kind.name}.",
            errors=[
                {
                    "pointer": "/params" + "".join(f"/{part}" for part in at["loc"]),
                    "detail": at["msg"],
                }
                for at in error.errors(include_url=False, include_input=False)
            ],
        ) from None
    found = [
        {"pointer": pointer, "detail": f"looks like a secret: {what}"}
        for pointer, what in secrets.find(checked, "/params")
    ]
    if found:
        raise SecretFoundError("Secrets belong in the vault, not in a directive.", errors=found)
    return checked


async def get(session: AsyncSession, directive_id: UUID) -> Directive:
    """The tenant's directive of this id; NotFoundError otherwise."""
    found = await session.get(Directive, directive_id)
    if found is None:
        raise NotFoundError(f"There is no directive {directive_id}.")
    return found


async def list_directives(
    session: AsyncSession,
    *,
    state: str | None = None,
    kind: str | None = None,
    correlation_id: str | None = None,
    target: str | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Directive]:
    """Directives, newest first; ``before`` is the last id of the page before."""
    query = select(Directive).order_by(Directive.id.desc()).limit(min(limit, MOST_AT_ONCE))
    if state is not None:
        query = query.where(Directive.state == state)
    if kind is not None:
        query = query.where(Directive.type == kind)
    if correlation_id is not None:
        query = query.where(Directive.correlation_id == correlation_id)
    if target is not None:
        query = query.where(Directive.target == target)
    if before is not None:
        query = query.where(Directive.id < before)
    return list(await session.scalars(query))


async def transitions(session: AsyncSession, directive_id: UUID) -> list[DirectiveTransition]:
    """All changes of a directive's state, in order."""
    return list(
        await session.scalars(
            select(DirectiveTransition)
            .where(DirectiveTransition.directive_id == directive_id)
            .order_by(DirectiveTransition.id)
        )
    )


async def cancel(
    session: AsyncSession,
    tenant: Tenant,
    directive_id: UUID,
    actor: Actor,
    *,
    types: Mapping[str, AnyDirectiveType] | None = None,
) -> Directive:
    """Call a directive off; one that is cancelled already stays so, a finished one is a ConflictError.

    A running attempt loses its lease and can no longer finish anything; what it did up to then is
    not undone. The type cleans up as after a failure.
    """
    directive = await get(session, directive_id)
    known = directive_types() if types is None else types
    if not find_type(directive.type, known).allows(actor.role):
        raise ForbiddenError(f"The role {actor.role} may not cancel {directive.type}.")
    changed = await session.scalar(
        update(Directive)
        .where(Directive.id == directive_id, Directive.state.in_(_CANCELLABLE))
        .values(
            state="cancelled",
            changed_by=actor.id,
            lease_token=None,
            lease_owner=None,
            lease_expires_at=None,
            finished_at=func.clock_timestamp(),
        )
        .returning(Directive)
        .execution_options(populate_existing=True)
    )
    if changed is not None:
        await withdraw(session, directive_id, actor.id)
        end = Settlement("cancelled", error_message=f"cancelled by {actor.id}")
        await record_ends(session, tenant, [AttemptEnd(no_attempt(changed), end)], known)
        return changed
    await session.refresh(directive)
    if directive.state == "cancelled":
        return directive
    raise ConflictError(f"Directive {directive_id} is {directive.state} and cannot be cancelled.")
