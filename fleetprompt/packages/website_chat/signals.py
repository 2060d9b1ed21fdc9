"""What the package answers to signals: pure functions, so that a replay asks for nothing twice.

A visitor's first message says in its signal where it goes by itself, with the keys that were asked for
when it was stored; a connector's word on a mail ends the escalation that asked for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from fleetprompt.signals.handlers import DirectiveRequest, Handler, SignalView
from fleetprompt.webchat.email import SETTLE
from fleetprompt.webchat.escalation import PLACES
from fleetprompt.webchat.telling import correlation_of

_STORIES = correlation_of(UUID(int=0))[:-36]


def escalate_first_message(signal: SignalView) -> list[DirectiveRequest]:
    """The escalations that the message's signal names; nothing of what is not of their form."""
    named = signal.data.get("escalations", ())
    found = named if isinstance(named, Sequence) and not isinstance(named, str) else ()
    return [
        DirectiveRequest(one["type"], one["params"], one["key"], correlation_id=_story(signal))
        for one in found
        if _well_formed(one, signal.data.get("conversation_id"))
    ]


def settle_mail(signal: SignalView) -> list[DirectiveRequest]:
    """That a mail of the chat was sent by a connector, or was not."""
    told = signal.metadata.get("correlation_id")
    directive_id = _id(signal.subject_id)
    if not isinstance(told, str) or not told.startswith(_STORIES) or directive_id is None:
        return []
    outcome = signal.type.rpartition(".")[2]
    return [
        DirectiveRequest(
            SETTLE,
            {"email_directive_id": directive_id, "outcome": outcome},
            f"webchat_email_outcome:{directive_id}:{outcome}",
        )
    ]


def _well_formed(one: Any, conversation_id: object) -> bool:
    return (
        isinstance(one, Mapping)
        and one.get("type") in PLACES
        and isinstance(one.get("params"), Mapping)
        and one["params"].get("conversation_id") == conversation_id
        and isinstance(one.get("key"), str)
        and one["key"].startswith("webchat_")
    )


def _id(text: str | None) -> str | None:
    try:
        return None if text is None else str(UUID(text))
    except ValueError:
        return None


def _story(signal: SignalView) -> str | None:
    told = signal.metadata.get("correlation_id")
    return told if isinstance(told, str) else None


SIGNAL_HANDLERS: Mapping[str, Handler] = {
    "webchat.message.received": escalate_first_message,
    "email.outbound.sent": settle_mail,
    "email.outbound.failed": settle_mail,
}
