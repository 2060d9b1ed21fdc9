"""``Idempotency-Key``: the same request sent again gets the answer of the first.

What was done under a key is a signal of the platform, ``api.request.accepted``, written in the
transaction that did it and found again by its dedupe key; so a retry finds it exactly when the
first attempt was committed, and the tenant can read it like everything else. Two at once wait for
one another. The content is compared by a digest, and the key itself is kept as a digest too.
"""

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Header
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import ConflictError, IdempotencyMismatchError
from fleetprompt.packages.canonical import canonical_json
from fleetprompt.signals.emit import NewSignal, emit
from fleetprompt.signals.envelope import key_of
from fleetprompt.signals.models import Signal, SignalKey
from fleetprompt.tenants.key_service import Identity

_KEY = Header(
    min_length=1,
    max_length=255,
    pattern=r"^[\x21-\x7e]+$",
    description=(
        "Any text of your own. Sending the same request again under the same key does "
        "nothing twice and names the directive of the first; another request under it is 422."
    ),
)
IdempotencyKey = Annotated[str | None, _KEY]
# Where two requests without a key could not be told from one that was sent twice.
NeededIdempotencyKey = Annotated[str, _KEY]

_ACCEPTED = "api.request.accepted"
_PLATFORM = "platform"
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))")

Ids = dict[str, str]


async def once(
    session: AsyncSession,
    caller: Identity,
    key: str | None,
    request: Mapping[str, Any],
    act: Callable[[], Awaitable[Ids]],
) -> Ids:
    """What ``act`` returned (ids by name) when ``request`` was first made under ``key``.

    Without a key, ``act`` is simply called. The same key with another request is an
    IdempotencyMismatchError; one whose first answer retention has removed, a ConflictError.
    """
    if key is None:
        return await act()
    kept_key = f"api:idempotency:{sha256(key.encode()).hexdigest()}"
    fingerprint = sha256(canonical_json(dict(request))).hexdigest()
    await session.execute(_ONE_AT_A_TIME, {"key": f"{caller.tenant.schema}:{kept_key}"})
    first_id = await session.scalar(
        select(SignalKey.signal_id).where(SignalKey.key == key_of(kept_key, _PLATFORM, None))
    )
    if first_id is None:
        ids = await act()
        await emit(
            session,
            NewSignal(
                type=_ACCEPTED,
                source=_PLATFORM,
                data={"request": fingerprint, "ids": ids, "actor": caller.actor},
                subject_type="directive",
                subject_id=ids.get("directive_id"),
                dedupe_key=kept_key,
            ),
        )
        return ids
    first = await session.get(Signal, first_id)
    if first is None:
        raise ConflictError("This idempotency key was used too long ago. Use a new one.")
    if first.source != _PLATFORM or first.data.get("request") != fingerprint:
        raise IdempotencyMismatchError(
            "This key was sent with another request before. Use a new key for a new request.",
            errors=[
                {"pointer": "#header/idempotency-key", "detail": "was used for something else"}
            ],
        )
    known: Ids = first.data["ids"]
    return known
