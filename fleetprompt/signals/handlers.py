"""Handlers: pure functions from a signal to directive requests, run in the ingest transaction.

A package names the signal types that it answers to. Its function sees the signal and nothing else, so
running it again (a replay) asks for the same directives under the same idempotency keys, which
then exist already.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from fleetprompt.signals.envelope import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignalView:
    """A signal as a handler sees it."""

    id: UUID
    type: str
    source: str
    occurred_at: datetime
    subject_type: str | None
    subject_id: str | None
    data: Mapping[str, Any]
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class DirectiveRequest:
    """What a handler asks for. ``idempotency_key`` must follow from the signal alone."""

    type: str
    params: Mapping[str, Any]
    idempotency_key: str
    target: str = "platform"
    max_attempts: int = 5
    correlation_id: str | None = None


Handler = Callable[[SignalView], Sequence[DirectiveRequest]]


@dataclass(frozen=True)
class Answer:
    """What one package's handler said to a signal; ``error`` if it could not."""

    package: str
    requests: Sequence[DirectiveRequest] = ()
    error: Exception | None = None


@dataclass(frozen=True)
class Handlers:
    """Which functions answer to which types, and for which package they speak.

    A type is exact, or a prefix that ends in ``.*``.
    """

    by_type: Mapping[str, Sequence[tuple[str, Handler]]] = field(default_factory=dict)

    @classmethod
    def of(cls, packages: Iterable[tuple[str, Mapping[str, Handler]]]) -> "Handlers":
        """From pairs of a package's slug and its functions by signal type."""
        table: dict[str, list[tuple[str, Handler]]] = {}
        for slug, functions in packages:
            for type_, function in functions.items():
                table.setdefault(type_, []).append((slug, function))
        return cls(table)

    def _of_type(self, type_: str) -> list[tuple[str, Handler]]:
        parts = type_.split(".")
        names = [type_, *(".".join(parts[:end]) + ".*" for end in range(len(parts) - 1, 0, -1))]
        return [entry for name in names for entry in self.by_type.get(name, ())]

    def requests(self, row: Row) -> list[msgspec.Raw]:
        """Records for the ingest statement as JSON, one for each directive asked for.

        A handler that raises, or asks for what is no JSON, loses no signal: it is logged, and a replay
        asks again.
        """
        found = self._of_type(row.type)
        if not found:
            return []
        view = SignalView(
            id=row.id,
            type=row.type,
            source=row.source,
            occurred_at=row.occurred_at,
            subject_type=row.subject_type,
            subject_id=row.subject_id,
            data=json.loads(bytes(row.data)),
            metadata=json.loads(bytes(row.metadata)),
        )
        records: list[msgspec.Raw] = []
        for package, function in found:
            try:
                records += [_record(view, package, request) for request in function(view)]
            except Exception:
                log.exception(
                    "a signal handler failed; the signal is stored",
                    extra={"package": package, "signal_type": row.type, "signal_id": str(row.id)},
                )
        return records

    def answers(self, view: SignalView, packages: Collection[str]) -> list[Answer]:
        """What the handlers of these packages say to a signal, for those who want to know of faults."""
        return [
            _answer(view, package, function)
            for package, function in self._of_type(view.type)
            if package in packages
        ]

    @property
    def packages(self) -> frozenset[str]:
        """The packages that have handlers at all."""
        return frozenset(package for entries in self.by_type.values() for package, _ in entries)


def _answer(view: SignalView, package: str, function: Handler) -> Answer:
    try:
        requests = list(function(view))
        if not all(isinstance(one, DirectiveRequest) for one in requests):
            raise TypeError("a handler returns directive requests")
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is told by who asked
        return Answer(package, error=error)
    return Answer(package, requests)


def _record(view: SignalView, package: str, request: DirectiveRequest) -> msgspec.Raw:
    record = {
        "signal_id": str(view.id),
        "package": package,
        "type": request.type,
        "params": dict(request.params),
        "idempotency_key": request.idempotency_key,
        "target": request.target,
        "max_attempts": request.max_attempts,
        "correlation_id": request.correlation_id or view.metadata.get("correlation_id"),
    }
    return msgspec.Raw(json.dumps(record, allow_nan=False).encode())
