"""The platform's own signals, written in the transaction whose fact they tell."""

import json
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


_KEY = text(
    "INSERT INTO signal_keys (key, signal_id) VALUES (:key, :id)"
    " ON CONFLICT (key) DO NOTHING RETURNING signal_id"
)
_KNOWN = text("SELECT signal_id FROM signal_keys WHERE key = :key")
_INSERT = text(
    "INSERT INTO signals (id, type, source, occurred_at, subject_type, subject_id, data, metadata,"
    " dedupe_key) VALUES (:id, :type, :source, :occurred_at, :subject_type, :subject_id,"
    " CAST(:data AS jsonb), CAST(:metadata AS jsonb), :dedupe_key)"
)


async def emit(session: AsyncSession, signal: NewSignal) -> UUID:
    """Write one signal in the tenant's transaction and return its id.

    It is there if and only if the transaction commits (research/platform.md, T15). With a dedupe key
    that the tenant has seen, nothing is written and the first signal's id comes back. Data that looks
    like a secret is a SecretFoundError naming the place, never the value.
    """
    found = [
        {"pointer": pointer, "detail": f"looks like a secret: {what}"}
        for part, name in ((signal.data, "/data"), (signal.metadata, "/metadata"))
        for pointer, what in secrets.find(part, name)
    ]
    if found:
        raise SecretFoundError(errors=found)
    signal_id = new_id()
    if signal.dedupe_key is not None:
        key = key_of(signal.dedupe_key, signal.source, None)
        fresh = await session.scalar(_KEY, {"key": key, "id": signal_id})
        if fresh is None:
            known: UUID = (await session.execute(_KNOWN, {"key": key})).scalar_one()
            return known
    metadata = {
        "schema_version": 1,
        "correlation_id": signal.correlation_id,
        "causation_id": signal.causation_id,
        **signal.metadata,
    }
    await session.execute(
        _INSERT,
        {
            "id": signal_id,
            "type": signal.type,
            "source": signal.source,
            "occurred_at": signal.occurred_at or system_clock(),
            "subject_type": signal.subject_type,
            "subject_id": signal.subject_id,
            "data": json.dumps(signal.data, allow_nan=False),
            "metadata": json.dumps(
                {name: value for name, value in metadata.items() if value is not None},
                allow_nan=False,
            ),
            "dedupe_key": signal.dedupe_key,
        },
    )
    return signal_id
