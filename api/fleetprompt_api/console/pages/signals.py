"""Signals: what happened, found by type, source, time and story; and one as it is stored."""

from datetime import UTC, datetime
from uuid import UUID

from starlette.responses import Response

from fleetprompt.signals.read import Filter, get_signal, list_signals
from fleetprompt.tenants.keys import Scope
from fleetprompt_api.auth import Platform
from fleetprompt_api.console.guard import LOOKING, Visitor, page_router
from fleetprompt_api.console.page import address_with, render

routes = page_router()

_PAGE = 50
_LONGEST = 256


@routes.api_route("/signals", methods=LOOKING)
async def read_signals(
    visitor: Visitor,
    platform: Platform,
    type: str = "",  # noqa: A002 - the form's word
    source: str = "",
    correlation_id: str = "",
    since: str = "",
    until: str = "",
    before: UUID | None = None,
) -> Response:
    """Signals, newest first; a type may be a prefix such as ``webchat.*``."""
    visitor.identity.require(Scope.SIGNALS_READ)
    asked = {
        "type": _word(type),
        "source": _word(source),
        "correlation_id": _word(correlation_id),
        "since": _word(since),
        "until": _word(until),
    }
    began, ended = _time(asked["since"]), _time(asked["until"])
    wrong = [name for name, at in (("since", began), ("until", ended)) if asked[name] and not at]
    wanted = Filter(
        type=asked["type"],
        source=asked["source"],
        correlation_id=asked["correlation_id"],
        occurred_from=began,
        occurred_before=ended,
    )
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        found = [] if wrong else await list_signals(session, wanted, before=before, limit=_PAGE)
    return render(
        "signals.html",
        visitor=visitor,
        status=422 if wrong else 200,
        here="Signals",
        now=platform.clock(),
        signals=found,
        asked={name: value or "" for name, value in asked.items()},
        wrong=wrong,
        filtered=any(asked.values()),
        older=address_with("/console/signals", before=found[-1].id, **asked)
        if len(found) == _PAGE
        else None,
    )


@routes.api_route("/signals/{signal_id}", methods=LOOKING)
async def read_signal(signal_id: UUID, visitor: Visitor, platform: Platform) -> Response:
    """One signal's envelope."""
    visitor.identity.require(Scope.SIGNALS_READ)
    async with platform.database.tenant(visitor.identity.tenant.schema) as session:
        signal = await get_signal(session, signal_id)
    return render(
        "signal.html", visitor=visitor, here="Signals", now=platform.clock(), signal=signal
    )


def _word(text: str) -> str | None:
    return text.strip()[:_LONGEST].replace("\x00", "") or None


def _time(text: str | None) -> datetime | None:
    """A time as a form or a person writes it, in UTC where it names no zone; None for what is none."""
    try:
        found = datetime.fromisoformat(text or "")
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
