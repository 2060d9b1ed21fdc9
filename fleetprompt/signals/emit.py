"""The platform's own signals, written in the transaction whose fact they tell."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt import secrets
from fleetprompt.clock import system_clock
from fleetprompt.errors import SecretFoundError
from fleetprompt.ids import new_id
from fleetprompt.signals import statements
from fleetprompt.signals.envelope import key_of


@dataclass(frozen=True, slots=True)
class NewSignal:
    """A signal to be written; the envelope of architecture §4 without what the platform fills in.

    ``occurred_at`` has a zone; unset means now. ``metadata`` adds to the ids given by name.
    """

    type: str
    data: dict[str, Any] = field(default_factory=dict)
    source: str = "platform"
    occurred_at: datetime | None = None
    subject_type: str | None = None
    subject_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    dedupe_key: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


_STORE = text(statements.STORE.replace("%s::jsonb", "CAST(:signals AS jsonb)"))
_KNOWN = text("SELECT signal_id FROM signal_keys WHERE key = :key")


async def emit(session: AsyncSession, signal: NewSignal) -> UUID:
    """Write one signal in the tenant's transaction and return its id.

    It is there if and only if the transaction commits (research/platform.md, T15). With a dedupe key
    that the tenant has seen, nothing is written and the first signal's id comes back. Data that looks
    like a secret is a SecretFoundError naming the place, never the value.
    """
    [signal_id] = await emit_all(session, [signal])
    return signal_id


async def emit_all(session: AsyncSession, signals: Sequence[NewSignal]) -> list[UUID]:
    """``emit`` for several, in one statement; their ids in the same order."""
    rows = [_row(signal) for signal in signals]
    stored = await session.execute(_STORE, {"signals": json.dumps(rows, allow_nan=False)})
    fresh = set(stored.scalars())
    ids: list[UUID] = []
    for row in rows:
        signal_id = UUID(row["id"])
        if signal_id not in fresh:
            signal_id = (await session.execute(_KNOWN, {"key": row["key"]})).scalar_one()
        ids.append(signal_id)
    return ids


def _row(signal: NewSignal) -> dict[str, Any]:
    found = [
        {"pointer": pointer, "detail": f"looks like a secret: {what}"}
        for part, name in ((signal.data, "/data"), (signal.metadata, "/metadata"))
        for pointer, what in secrets.find(part, name)
    ]
    if found:
        raise SecretFoundError(errors=found)
    key = signal.dedupe_key and str(key_of(signal.dedupe_key, signal.source, None))
    metadata = {
        "schema_version": 1,
        "correlation_id": signal.correlation_id,
        "causation_id": signal.causation_id,
        **signal.metadata,
    }
    return {
        "id": str(new_id()),
        "key": key,
        "type": signal.type,
        "source": signal.source,
        "occurred_at": (signal.occurred_at or system_clock()).isoformat(),
        "subject_type": signal.subject_type,
        "subject_id": signal.subject_id,
        "dedupe_key": signal.dedupe_key,
        "data": signal.data,
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }
