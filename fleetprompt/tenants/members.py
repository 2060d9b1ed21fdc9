"""People and their roles in an organization."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import ConflictError, InvalidError, NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.tenants.keys import Role
from fleetprompt.tenants.models import ApiKey, Member, User
from fleetprompt.tenants.service import Tenant

# Deliberately loose (RFC 5321 allows nearly anything before the @); what matters is that no control
# character or space can reach a mail header.
_EMAIL = re.compile(r"[^\s@<>\"'\x00-\x1f,;]{1,64}@[^\s@<>\"'\x00-\x1f,;]{1,189}")


@dataclass(frozen=True)
class MemberView:
    """A member as shown to others."""

    user_id: UUID
    email: str
    name: str
    role: Role
    active: bool
    created_at: datetime


async def add_member(
    session: AsyncSession, tenant: Tenant, *, email: str, role: Role, name: str = ""
) -> MemberView:
    """Give a person a role in a tenant, or change it; the person is known by e-mail address."""
    if not _EMAIL.fullmatch(email):
        raise InvalidError(
            "This is no e-mail address.",
            errors=[{"pointer": "/email", "detail": "an address such as ops@example.org"}],
        )
    if len(name) > 200 or "\x00" in name:
        raise InvalidError(
            "This name cannot be used.",
            errors=[{"pointer": "/name", "detail": "a name has at most 200 characters"}],
        )
    user_id = await session.scalar(
        insert(User)
        .values(id=new_id(), email=email, name=name)
        .on_conflict_do_update(index_elements=[func.lower(User.email)], set_={"email": User.email})
        .returning(User.id)
    )
    if user_id is None:
        raise ConflictError("This address is being added by somebody else; try again.")
    if role != "owner":
        await _keep_an_owner(session, tenant, user_id)
    await session.execute(
        insert(Member)
        .values(organization_id=tenant.id, user_id=user_id, role=role)
        .on_conflict_do_update(
            index_elements=["organization_id", "user_id"], set_={"role": role, "active": True}
        )
    )
    return await get_member(session, tenant, user_id)


async def list_members(session: AsyncSession, tenant: Tenant) -> list[MemberView]:
    """All members of a tenant by e-mail address."""
    found = await session.execute(
        select(User, Member)
        .join(Member, Member.user_id == User.id)
        .where(Member.organization_id == tenant.id)
        .order_by(User.email)
    )
    return [_view(user, member) for user, member in found]


async def get_member(session: AsyncSession, tenant: Tenant, user_id: UUID) -> MemberView:
    """One member; NotFoundError outside this tenant."""
    found = (
        await session.execute(
            select(User, Member)
            .join(Member, Member.user_id == User.id)
            .where(Member.organization_id == tenant.id, Member.user_id == user_id)
        )
    ).one_or_none()
    if found is None:
        raise NotFoundError(f"There is no member {user_id} in this tenant.")
    return _view(found[0], found[1])


async def find_member(session: AsyncSession, tenant: Tenant, email: str) -> MemberView:
    """The member with this address, in whatever case; NotFoundError otherwise."""
    found = (
        await session.execute(
            select(User, Member)
            .join(Member, Member.user_id == User.id)
            .where(Member.organization_id == tenant.id, func.lower(User.email) == email.lower())
        )
    ).one_or_none()
    if found is None:
        raise NotFoundError(f"{email} is no member of {tenant.slug}.")
    return _view(found[0], found[1])


async def addresses_of(
    session: AsyncSession, tenant: Tenant, user_ids: Iterable[UUID]
) -> dict[UUID, str]:
    """The e-mail addresses of those of these people who are members."""
    found = await session.execute(
        select(User.id, User.email)
        .join(Member, Member.user_id == User.id)
        .where(Member.organization_id == tenant.id, User.id.in_(list(user_ids)))
    )
    return {row.id: row.email for row in found}


async def remove_member(session: AsyncSession, tenant: Tenant, user_id: UUID) -> None:
    """End a membership and the person's keys; the last owner stays (ConflictError)."""
    member = await session.get(Member, (tenant.id, user_id))
    if member is None:
        raise NotFoundError(f"There is no member {user_id} in this tenant.")
    await _keep_an_owner(session, tenant, user_id)
    await session.execute(
        update(ApiKey)
        .where(
            ApiKey.organization_id == tenant.id,
            ApiKey.user_id == user_id,
            ApiKey.revoked_at.is_(None),
        )
        .values(revoked_at=func.now())
    )
    await session.delete(member)


async def _keep_an_owner(session: AsyncSession, tenant: Tenant, leaving: UUID) -> None:
    owners = select(Member).where(Member.organization_id == tenant.id, Member.role == "owner")
    # Locked, so that two owners cannot leave at the same moment.
    found = [m.user_id for m in await session.scalars(owners.with_for_update())]
    if found == [leaving]:
        raise ConflictError("This is the last owner. Make somebody else an owner first.")


def _view(user: User, member: Member) -> MemberView:
    return MemberView(
        user.id,
        user.email,
        user.name,
        member.role,  # type: ignore[arg-type]  # the column is checked by the database
        member.active,
        member.created_at,
    )
