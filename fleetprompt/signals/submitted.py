"""What waits to be stored: a request's signals, and the answer it waits for."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import msgspec

from fleetprompt.errors import FleetPromptError
from fleetprompt.signals.envelope import Accepted, Metadata
from fleetprompt.telemetry.spans import SpanContexts, signals_submitted

_metadata = msgspec.json.Decoder(Metadata)


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of one signal. A duplicate carries the id that was there before."""

    id: UUID
    status: Literal["created", "duplicate"]
    content: Literal["same", "different", "expired"] | None = None


@dataclass(slots=True, eq=False)
class Submitted:
    """Signals of one tenant that are stored together, with what handlers ask for because of them."""

    schema: str
    items: Sequence[Accepted]
    done: asyncio.Future[list[Stored]]
    directives: list[msgspec.Raw] = field(default_factory=list)
    spans: SpanContexts = ()

    @property
    def failed(self) -> bool:
        """Whether it was told that it is not stored."""
        return self.done.done() and (self.done.cancelled() or self.done.exception() is not None)

    def answer(self, results: dict[UUID, Stored]) -> None:
        """Tell what became of each signal."""
        if not self.done.done():
            self.done.set_result([results[item.row.id] for item in self.items])

    def fail(self, error: FleetPromptError) -> None:
        """Tell that nothing is stored."""
        if not self.done.done():
            self.done.set_exception(error)


def by_schema(submitted: Sequence[Submitted]) -> dict[str, list[Submitted]]:
    """The same, by tenant schema."""
    found: dict[str, list[Submitted]] = {}
    for one in submitted:
        found.setdefault(one.schema, []).append(one)
    return found


def spans_of(items: Sequence[Accepted]) -> SpanContexts:
    """The spans that the signals belong to, where spans are told."""
    return signals_submitted(
        [
            (item.row.id, item.row.type, _metadata.decode(item.row.metadata).correlation_id)
            for item in items
        ]
    )
