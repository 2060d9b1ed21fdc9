"""The same server and the same route, with a writer that stores nothing: what HTTP alone costs."""

from collections.abc import Sequence

from fleetprompt.signals.envelope import Accepted
from fleetprompt.signals.ingest import SignalWriter
from fleetprompt.signals.submitted import Stored


async def _answer_at_once(
    _writer: SignalWriter, _schema: str, items: Sequence[Accepted]
) -> list[Stored]:
    return [Stored(item.row.id, "created") for item in items]


SignalWriter.submit = _answer_at_once  # type: ignore[method-assign,assignment]

from fleetprompt_api.app import app  # noqa: E402

__all__ = ["app"]
