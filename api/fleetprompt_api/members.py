"""People of a tenant and their roles. Nobody gives or takes a role above their own."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from fleetprompt.errors import ForbiddenError
from fleetprompt.tenants import members
from fleetprompt.tenants.key_service import Identity
from fleetprompt.tenants.keys import Role, at_least
from fleetprompt_api.auth import MembersManage, Platform
from fleetprompt_api.problems_openapi import problems
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Links, Listing, Text, Wire, listing

routes = router("members")

EmailAddress = Annotated[
    str,
    Field(
        max_length=254,
        pattern=r"^[^\s@<>\"',;\x00-\x1f]{1,64}@[^\s@<>\"',;\x00-\x1f]{1,189}$",
        examples=["ops@example.org"],
    ),
]


class MemberView(Wire):
    """A person's membership."""

    model_config = ConfigDict(from_attributes=True)

    user_id: UUID
    email: str
    name: str
    role: Role
    active: bool
    created_at: datetime
    links: Links = Field(default_factory=dict)

    @classmethod
    def of(cls, member: members.MemberView) -> "MemberView":
        """As answered."""
        view = cls.model_validate(member)
        view.links = {"self": f"/api/v1/members/{member.user_id}"}
        return view


class NewMember(BaseModel):
    """A person to be given a role; one who is a member already gets the new role."""

    model_config = ConfigDict(extra="forbid")

    email: EmailAddress
    role: Role
    name: Annotated[Text, Field(max_length=200)] | None = None


@routes.get("/members")
async def list_members(
    request: Request, caller: MembersManage, platform: Platform
) -> Listing[MemberView]:
    """All members by e-mail address."""
    async with platform.database.platform() as session:
        found = await members.list_members(session, caller.tenant)
    return listing(request, [MemberView.of(one) for one in found])


@routes.post("/members", status_code=201, responses=problems(409))
async def add_member(new: NewMember, caller: MembersManage, platform: Platform) -> MemberView:
    """Give a person a role, or change it. The last owner stays an owner."""
    _may_handle(caller, new.role)
    async with platform.database.platform() as session:
        for member in await members.list_members(session, caller.tenant):
            if member.email.lower() == new.email.lower():
                _may_handle(caller, member.role)
        added = await members.add_member(
            session, caller.tenant, email=new.email, role=new.role, name=new.name or ""
        )
    return MemberView.of(added)


@routes.delete("/members/{user_id}", status_code=204, responses=problems(409))
async def remove_member(user_id: UUID, caller: MembersManage, platform: Platform) -> None:
    """End a membership and revoke the person's keys. The last owner stays."""
    async with platform.database.platform() as session:
        member = await members.get_member(session, caller.tenant, user_id)
        _may_handle(caller, member.role)
        await members.remove_member(session, caller.tenant, user_id)


def _may_handle(caller: Identity, role: Role) -> None:
    if not at_least(caller.role, role):
        raise ForbiddenError(f"Your role cannot give or take the role {role!r}.", role=role)
