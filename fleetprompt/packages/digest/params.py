"""What the directives of a digest are given."""

from datetime import date
from typing import ClassVar, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from fleetprompt.directives.types import DirectiveParams
from fleetprompt.schedules.local_time import Window
from fleetprompt.tenants.service import Tenant


class WindowParams(BaseModel):
    """The half-open window ``[start, end)``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start >= self.end:
            raise ValueError("the window must end after it starts")
        return self

    def as_window(self) -> Window:
        """The same for reckoning with."""
        return Window(self.start, self.end)


class DigestParams(DirectiveParams):
    """One digest. ``execution_id`` belongs to a manual one, ``local_date`` to a scheduled one."""

    key: ClassVar[str]

    installation_id: UUID
    trigger: Literal["scheduled", "manual"]
    window: WindowParams
    local_date: date | None = None
    execution_id: UUID | None = None

    @model_validator(mode="after")
    def _identified(self) -> Self:
        named = self.local_date if self.trigger == "scheduled" else self.execution_id
        if named is None:
            raise ValueError("a scheduled digest needs local_date, a manual one execution_id")
        return self

    def dedupe_key(self, tenant: Tenant) -> str:
        """What makes it one message: the date or the run, not its time of day, looks or words (trap 21)."""
        which = self.local_date if self.trigger == "scheduled" else f"manual:{self.execution_id}"
        return f"{self.key}:{tenant.slug}:{self.installation_id}:{which}"


class TestParams(DirectiveParams):
    """One test message, told of in one execution."""

    __test__ = False  # not a test, whatever its name

    key: ClassVar[str]

    installation_id: UUID
    execution_id: UUID

    def dedupe_key(self, tenant: Tenant) -> str:
        """Of its own, so that it takes no digest's place (trap 20)."""
        return f"{self.key}:{tenant.slug}:{self.installation_id}:{self.execution_id}"


class SettleParams(DirectiveParams):
    """What to do about a message that was not certainly sent.

    ``finish`` is the platform's own: look, and send what is certainly not there.
    """

    installation_id: UUID
    message_id: UUID
    action: Literal["look", "post_again", "give_up", "finish"]
