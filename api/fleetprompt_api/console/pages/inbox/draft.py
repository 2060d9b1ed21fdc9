"""A draft of a reply by a language model, as it is put into the reply's field."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fleetprompt.directives.models import Directive
from fleetprompt.webchat.drafts import GENERATE
from fleetprompt.webchat.models import ChatConversation

_WRITING = frozenset({"awaiting_approval", "pending", "running"})


@dataclass(frozen=True, slots=True)
class Draft:
    """One that was asked for. ``told`` is why there is none; ``unproven`` are figures nobody has named.

    ``outdated``: something was written after what it answers.
    """

    state: str
    text: str = ""
    told: str = ""
    unproven: Sequence[str] = ()
    outdated: bool = False

    @property
    def writing(self) -> bool:
        """Whether there is something to wait for."""
        return self.state in _WRITING


def draft_of(
    directives: Iterable[Directive], draft_id: UUID | None, conversation: ChatConversation
) -> Draft | None:
    """The conversation's draft of this directive; None where there is none, or nothing to answer any more."""
    found = next((one for one in directives if one.id == draft_id and one.type == GENERATE), None)
    if found is None or conversation.status != "open":
        return None
    result: dict[str, Any] = found.result or {}
    text = result.get("draft")
    if found.state in _WRITING:
        return Draft(found.state)
    if found.state != "succeeded" or not isinstance(text, str):
        return Draft(found.state, told=found.error_message or "No draft was written.")
    return Draft(
        found.state,
        text,
        unproven=[str(one) for one in result.get("unproven", ())],
        outdated=found.params.get("up_to") != conversation.last_seq,
    )
