"""Lines for mail, web chat and connectors: signals that people understand better than their types.

They appear when there are such signals. The types are those of the connector and of web chat
(ARCHITECTURE §9 and §10).
"""

from collections.abc import Iterable, Iterator, Mapping

from fleetprompt.packages.digest import wording
from fleetprompt.packages.digest.facts import DigestFacts
from fleetprompt.packages.digest.rows import (
    CHAT_MESSAGE,
    MAIL_RECEIVED,
    TypeCount,
)
from fleetprompt.packages.digest.trend import Trend

# Each line's signals in the order of work: the type, and how one and several of it are called.
_SURFACES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Mail": {
        MAIL_RECEIVED: ("received", "received"),
        "email.inbound.failed": ("unreadable", "unreadable"),
        "email.draft.created": ("draft written", "drafts written"),
        "email.draft.sent": ("draft sent", "drafts sent"),
        "email.draft.discarded": ("draft discarded", "drafts discarded"),
        "email.outbound.sent": ("sent", "sent"),
        "email.outbound.failed": ("not sent", "not sent"),
    },
    "Web chat": {
        "webchat.session.started": ("conversation", "conversations"),
        CHAT_MESSAGE: ("message", "messages"),
        "webchat.reply.sent": ("reply", "replies"),
        "webchat.contact.captured": ("contact", "contacts"),
        "webchat.escalation.created": ("escalation", "escalations"),
        "webchat.escalation.failed": ("escalation failed", "escalations failed"),
        "webchat.escalation.given_up": ("escalation given up", "escalations given up"),
        "webchat.conversation.erased": ("conversation erased", "conversations erased"),
    },
    "Connectors": {
        "connector.silent": ("fell silent", "fell silent"),
        "connector.error": ("error", "errors"),
        "connector.paired": ("paired", "paired"),
        "connector.revoked": ("revoked", "revoked"),
    },
}
# Told along with them, by no figure of their own: steps in between, tests, and signs of life.
_IN_BETWEEN = (
    "connector.heartbeat",
    "email.inbound.processed",
    "email.outbound.requested",
    "webchat.conversation.assigned",
    "webchat.escalation.notified",
    "webchat.reply.generated",
    "webchat.session.ended",
    "webchat.session.rated",
    "webchat.site.disabled",
    "webchat.site.registered",
    "webchat.site.secret_rotated",
    "webchat.test.completed",
)
# The totals that keep some of the figures.
_COMPARED = {MAIL_RECEIVED: "mails_received", CHAT_MESSAGE: "chat_messages"}
SURFACE_TYPES = frozenset(_IN_BETWEEN).union(*_SURFACES.values())


def others(types: Iterable[TypeCount]) -> list[TypeCount]:
    """The types that neither outcomes nor these lines tell of."""
    return [row for row in types if not row.told and row.name not in SURFACE_TYPES]


def surface_lines(facts: DigestFacts, trend: Trend, links: wording.Links) -> Iterator[str]:
    """One line for each of mail, web chat and connectors that had signals."""
    counts = {row.name: row.count for row in facts.types}
    for title, figures in _SURFACES.items():
        parts = []
        for type_, (one, more) in figures.items():
            count = counts.get(type_, 0)
            if count:
                total = _COMPARED.get(type_)
                address = links.signals(facts.window, type_)
                told = wording.link(wording.many(count, one, more), address)
                parts.append(f"{told}{trend.delta(total) if total else ''}")
        if parts:
            yield f"**{title}** · {' · '.join(parts)}"
