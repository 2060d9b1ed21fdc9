"""The same server with handlers of five signal types, as an installed package's would be.

Each looks at its signals' content; one signal of a hundred asks for a directive.
"""

from collections.abc import Sequence

import fleetprompt_api.state

from bench.ingest import HANDLED_PACKAGE
from fleetprompt.signals.handlers import DirectiveRequest, Handlers, SignalView

TYPES = (
    "email.inbound.received",
    "email.outbound.failed",
    "webchat.message.received",
    "ci.*",
    "billing.*",
)


def _rules(signal: SignalView) -> Sequence[DirectiveRequest]:
    addressed = "team@example.org" in signal.data.get("to", ())
    # The last two digits of the load's sequence number: a hundredth of each client's signals.
    if not addressed or str(signal.subject_id)[12:14] != "00":
        return ()
    return [
        DirectiveRequest(
            type="bench.note",
            params={"subject": signal.data["subject"]},
            idempotency_key=f"bench.note:{signal.id}",
        )
    ]


def _handlers() -> Handlers:
    return Handlers.of([(HANDLED_PACKAGE, dict.fromkeys(TYPES, _rules))])


fleetprompt_api.state.signal_handlers = _handlers  # type: ignore[attr-defined]

from fleetprompt_api.app import app  # noqa: E402

__all__ = ["app"]
