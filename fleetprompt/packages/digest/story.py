"""The signals of one message, and the slot it was due in."""

from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.leases import ClaimedDirective
from fleetprompt.directives.models import Directive
from fleetprompt.packages.digest.params import DigestParams, TestParams
from fleetprompt.schedules import slots
from fleetprompt.signals.emit import NewSignal, emit


@dataclass(frozen=True, slots=True)
class Story:
    """What a digest's or a test's signals tell of: the directive that it was asked for with."""

    directive_id: UUID
    correlation_id: str | None
    params: DigestParams | TestParams

    @classmethod
    def of(cls, directive: ClaimedDirective | Directive, params: DigestParams | TestParams) -> Self:
        """The story of this directive."""
        return cls(directive.id, directive.correlation_id, params)


async def tell(session: AsyncSession, type_: str, story: Story, **data: Any) -> None:
    """A signal about this message, once for each directive; never its text."""
    await emit(session, signal_of(type_, story, **data))


def signal_of(type_: str, story: Story, **data: Any) -> NewSignal:
    """The signal that ``tell`` writes."""
    params = story.params
    about: dict[str, Any] = {"trigger": "test"}
    if isinstance(params, DigestParams):
        about = {"trigger": params.trigger, "window": params.window.model_dump(mode="json")}
    return NewSignal(
        type=type_,
        subject_type="installation",
        subject_id=str(params.installation_id),
        data={
            "installation_id": str(params.installation_id),
            **about,
            **{name: value for name, value in data.items() if value is not None},
        },
        correlation_id=story.correlation_id,
        causation_id=f"directive:{story.directive_id}",
        dedupe_key=f"{type_}:{story.directive_id}",
    )


async def settle_slot(
    session: AsyncSession, params: DigestParams | TestParams, state: slots.Settled
) -> None:
    """Say how a scheduled digest's slot ended; nothing for what has none."""
    if isinstance(params, DigestParams) and params.local_date is not None:
        await slots.settle_date(session, params.installation_id, params.local_date, state)
