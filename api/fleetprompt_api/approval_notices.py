"""Where a tenant is told in Mattermost that something waits for approval."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from fleetprompt.directives.approvals.notices.models import ApprovalNotices
from fleetprompt.directives.approvals.notices.setting import (
    LONGEST_REMINDER,
    MOST_PER_HOUR,
    SHORTEST_REMINDER,
    WantedNotices,
    read_notices,
    store_notices,
)
from fleetprompt_api.auth import ApprovalsAnnounce, DirectivesRead, Platform, actor_of
from fleetprompt_api.routing import router
from fleetprompt_api.wire import Links, Text, Wire

routes = router("approvals")


class NoticeSetting(BaseModel):
    """Post with the Mattermost connection of `installation_id`; null is the webhook's own channel.

    A reminder comes `remind_before_seconds` before an approval expires, in the middle of its time
    where that is sooner, and never with null. Beyond `most_per_hour`, one summary stands for the rest.
    """

    model_config = ConfigDict(extra="forbid")

    installation_id: UUID
    enabled: bool = True
    channel: Text | None = None
    remind_before_seconds: Annotated[
        int | None, Field(ge=SHORTEST_REMINDER, le=LONGEST_REMINDER)
    ] = 3600
    most_per_hour: Annotated[int, Field(ge=1, le=MOST_PER_HOUR)] = 20


class NoticeSettingView(Wire):
    """The setting in force; all but `enabled` is null while the tenant has none."""

    model_config = ConfigDict(from_attributes=True)

    enabled: bool = False
    installation_id: UUID | None = None
    channel: str | None = None
    remind_before_seconds: int | None = None
    most_per_hour: int | None = None
    changed_by: str | None = None
    changed_at: datetime | None = None
    links: Links = Field(default_factory=dict)


@routes.get("/approval-notices")
async def read_approval_notices(caller: DirectivesRead, platform: Platform) -> NoticeSettingView:
    """Whether and where people are told that something waits for approval."""
    async with platform.database.tenant(caller.tenant.schema) as session:
        return _view(await read_notices(session))


@routes.put("/approval-notices")
async def change_approval_notices(
    new: NoticeSetting, caller: ApprovalsAnnounce, platform: Platform
) -> NoticeSettingView:
    """Say where notices go. What waits already is not announced afterwards."""
    wanted = WantedNotices(
        installation_id=new.installation_id,
        enabled=new.enabled,
        channel=new.channel,
        remind_before_seconds=new.remind_before_seconds,
        most_per_hour=new.most_per_hour,
    )
    async with platform.database.tenant(caller.tenant.schema) as session:
        return _view(await store_notices(session, wanted, by=actor_of(caller)))


def _view(setting: ApprovalNotices | None) -> NoticeSettingView:
    view = NoticeSettingView() if setting is None else NoticeSettingView.model_validate(setting)
    view.links = {
        "self": "/api/v1/approval-notices",
        "sent": "/api/v1/directives?type=approval.notify",
    }
    if view.installation_id is not None:
        view.links["installation"] = f"/api/v1/installations/{view.installation_id}"
    return view
