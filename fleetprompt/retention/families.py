"""What is kept for a time: the families, their rules in words, and the platform's defaults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fleetprompt.errors import InvalidError
from fleetprompt.settings import Settings

Family = Literal["signals", "lake", "executions", "directives", "conversations"]
FAMILIES: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True, slots=True)
class Rule:
    """One family: what happens to it, the fewest days that may be asked for, the platform's own."""

    summary: str
    fewest_days: int
    default_days: Callable[[Settings], int | None]


RULES: Mapping[Family, Rule] = {
    "signals": Rule(
        "Signals leave PostgreSQL once the lake holds them; the hashes of their dedupe keys stay.",
        1,
        lambda settings: settings.signal_retention_days,
    ),
    "lake": Rule(
        "The lake's files of a UTC day are deleted.",
        1,
        lambda settings: settings.lake_retention_days,
    ),
    "executions": Rule(
        "Finished executions are deleted with their logs.",
        14,
        lambda settings: settings.execution_retention_days,
    ),
    "directives": Rule(
        "Finished directives lose their content; what they were, how they ended and their keys stay.",
        14,
        lambda settings: settings.directive_retention_days,
    ),
    "conversations": Rule(
        "Closed conversations of the chat are erased as a visitor's request would erase them.",
        1,
        lambda settings: settings.conversation_retention_days,
    ),
}


def family_of(name: str) -> Family:
    """The family of this name; InvalidError with the names that there are."""
    for family in FAMILIES:
        if family == name:
            return family
    raise InvalidError(f"There is no family {name!r}; there are: {', '.join(FAMILIES)}.")


def check_days(family: Family, days: int | None) -> int | None:
    """``days`` itself, None meaning for ever; InvalidError where it is fewer than the family bears."""
    fewest = RULES[family].fewest_days
    if days is not None and not fewest <= days <= 36_500:
        raise InvalidError(f"{family} are kept for {fewest} to 36500 days, or for ever.")
    return days
