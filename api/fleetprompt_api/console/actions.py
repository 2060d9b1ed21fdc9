"""What a directive does, as people read it: its params one by one, with what they mean."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.directives.types import directive_types
from fleetprompt.packages.models import Installation


@dataclass(frozen=True, slots=True)
class Parameter:
    """One param. ``note`` says in words what an id stands for."""

    name: str
    value: Any
    meaning: str
    note: str

    @property
    def is_text(self) -> bool:
        """Whether it is shown, and edited, as text instead of JSON."""
        return isinstance(self.value, str)


@dataclass(frozen=True, slots=True)
class ShownAction:
    """A directive's type and target, and what it would do or did."""

    type: str
    summary: str
    target: str
    parameters: list[Parameter]


async def shown_action(
    session: AsyncSession, name: str, target: str, params: dict[str, Any]
) -> ShownAction:
    """From a directive's type, which may be gone from the registry, and its params."""
    kind = directive_types().get(name)
    properties = kind.params.model_json_schema().get("properties", {}) if kind else {}
    return ShownAction(
        type=name,
        summary=kind.summary if kind else "",
        target=target,
        parameters=[
            Parameter(
                name=param,
                value=value,
                meaning=properties.get(param, {}).get("description", ""),
                note=await _note(session, param, value),
            )
            for param, value in params.items()
        ],
    )


async def _note(session: AsyncSession, name: str, value: Any) -> str:
    if name != "installation_id" or not isinstance(value, str):
        return ""
    try:
        found = await session.get(Installation, UUID(value))
    except ValueError:
        return ""
    return "" if found is None else f"{found.package} {found.version}, {found.state}"
