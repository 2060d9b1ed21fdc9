"""The ledger of outbound messages: what may be sent, what was, and what nobody can say.

::

    planned ─► claimed ─► sending ─► posted | rejected | retryable | unknown

``sending`` is committed just before the first byte leaves. So a crash in ``claimed`` sent nothing and
the message may be claimed again when the lease is over (research/mattermost_digest.md, trap 19); a
crash in ``sending`` may have sent it and becomes ``unknown`` (trap 18). ``retryable`` means: certainly
not delivered. What may be done about an unknown one is in ``doubt.py``. Times are the database's.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.elements import ColumnElement

from fleetprompt.db.text import storable
from fleetprompt.errors import ErrorKind, StaleLeaseError
from fleetprompt.ids import new_id
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.secrets import redact
from fleetprompt.telemetry import events

Settled = Literal["posted", "rejected", "retryable", "unknown"]
Proof = Literal["answer", "read_back"]

# Longer than any transport's whole deadline, so that a live sender is never taken for a dead one.
LEASE_SECONDS = 60.0
LOST_SENDER = "the sender went away while sending; whether the message arrived is not known"


@dataclass(frozen=True, slots=True)
class Intent:
    """A message to be sent once. The same ``dedupe_key`` is the same message, whatever it looks like.

    ``destination`` is what people may see of where it goes, never the secret address itself.
    """

    dedupe_key: str
    provider: str
    destination: str
    content_sha256: str
    correlation_id: str | None = None
    directive_id: UUID | None = None
    execution_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send one message, in one attempt."""

    message_id: UUID
    attempt: int
    token: UUID


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a message goes, noted before it is sent so that it can be looked for afterwards.

    ``place`` and ``author`` are the other side's ids of the channel and of who posts there;
    ``remote_time`` is the other side's clock just before. All unset: nobody can look.
    """

    place: str | None = None
    author: str | None = None
    remote_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the ledger says of a message; ``lease`` only for the one caller who may send it now.

    ``wait`` is in seconds: how long another's lease or the other side's ``Retry-After`` still runs.
    ``row`` is the whole entry as this transaction leaves it.
    """

    state: str
    lease: Lease | None
    wait: float
    error_kind: str | None
    error_message: str | None
    settled_at: datetime | None
    content_sha256: str
    row: OutboundMessage = field(repr=False, compare=False)


async def plan_and_claim(
    session: AsyncSession, intent: Intent, *, lease_seconds: float = LEASE_SECONDS
) -> Claimed:
    """Enter the message if it is new, and take the right to send it if it is free.

    Free is what is planned, what certainly was not delivered and may be tried again, and what
    somebody claimed but did not begin to send before his lease ended. One caller of any number gets the
    lease (trap 17).
    """
    made = await _enter_claimed(session, intent, lease_seconds)
    if made is not None:
        return made
    message = (
        await session.scalars(
            select(OutboundMessage)
            .where(OutboundMessage.dedupe_key == intent.dedupe_key)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
    ).one()
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    lease_over = message.lease_expires_at is None or message.lease_expires_at <= now
    if message.state == "sending" and lease_over:
        give_up_sender(message, now)
    free = (
        message.state == "planned"
        or (message.state == "claimed" and lease_over)
        or (message.state == "retryable" and (message.retry_after or now) <= now)
    )
    if free:
        message.state = "claimed"
        message.attempt += 1
        message.lease_token = new_id()
        message.lease_expires_at = now + timedelta(seconds=lease_seconds)
        message.destination = intent.destination
        message.content_sha256 = intent.content_sha256
        message.directive_id = intent.directive_id
        message.execution_id = intent.execution_id
        message.error_kind = message.error_message = message.retry_after = message.settled_at = None
    await session.flush()
    held = (
        Lease(message.id, message.attempt, message.lease_token)
        if free and message.lease_token
        else None
    )
    until = message.retry_after if message.state == "retryable" else message.lease_expires_at
    waiting = (
        held is None and until is not None and message.state in ("claimed", "sending", "retryable")
    )
    return Claimed(
        state=message.state,
        lease=held,
        wait=max(0.0, (until - now).total_seconds()) if waiting and until else 0.0,
        error_kind=message.error_kind,
        error_message=message.error_message,
        settled_at=message.settled_at,
        content_sha256=message.content_sha256,
        row=message,
    )


async def _enter_claimed(
    session: AsyncSession, intent: Intent, lease_seconds: float
) -> Claimed | None:
    """A new message, planned and claimed at once; None if there is one of this key."""
    token = new_id()
    message: OutboundMessage | None = await session.scalar(
        insert(OutboundMessage)
        .values(
            id=new_id(),
            dedupe_key=intent.dedupe_key,
            provider=intent.provider,
            destination=intent.destination,
            state="claimed",
            attempt=1,
            lease_token=token,
            lease_expires_at=_from_now(lease_seconds),
            content_sha256=intent.content_sha256,
            correlation_id=intent.correlation_id,
            directive_id=intent.directive_id,
            execution_id=intent.execution_id,
        )
        .on_conflict_do_nothing(index_elements=[OutboundMessage.dedupe_key])
        .returning(OutboundMessage)
    )
    if message is None:
        return None
    lease = Lease(message.id, 1, token)
    return Claimed("claimed", lease, 0.0, None, None, None, intent.content_sha256, message)


def _from_now(seconds: float) -> ColumnElement[datetime]:
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


async def begin_sending(
    session: AsyncSession,
    lease: Lease,
    mark: Mark | None = None,
    *,
    lease_seconds: float = LEASE_SECONDS,
) -> None:
    """Note that bytes leave next; commit, then send. StaleLeaseError if the lease is gone."""
    mark = mark or Mark()
    await change_held(
        session,
        lease,
        ("claimed",),
        state="sending",
        sending_at=func.clock_timestamp(),
        remote_place=mark.place,
        remote_author=mark.author,
        remote_time=mark.remote_time,
        absent_at=None,
        lease_expires_at=_from_now(lease_seconds),
    )


async def settle(
    session: AsyncSession,
    lease: Lease,
    state: Settled,
    *,
    error_kind: ErrorKind | None = None,
    error_message: str | None = None,
    retry_in: float | None = None,
    remote_id: str | None = None,
    permalink: str | None = None,
    proof: Proof | None = None,
) -> None:
    """Record what became of the message; StaleLeaseError if another attempt has taken over.

    A sender that was slow and took for lost may still say what it learned: the message was not sent
    again meanwhile. ``retry_in`` is in seconds, for ``retryable`` only. ``proof`` says how it is known
    that it was posted: by the answer, which is the default, or by finding it there.
    """
    await change_held(
        session,
        lease,
        ("claimed", "sending", "unknown"),
        state=state,
        lease_expires_at=None,
        settled_at=func.clock_timestamp(),
        error_kind=error_kind,
        error_message=None if error_message is None else storable(redact(error_message)),
        retry_after=None if retry_in is None else _from_now(retry_in),
        remote_id=remote_id,
        permalink=permalink,
        proof=(proof or "answer") if state == "posted" else None,
    )
    events.message_settled(state, error_kind)


async def give_up_lost(session: AsyncSession) -> int:
    """Make ``unknown`` what is in ``sending`` under a lease that is over; how many there were."""
    result = await session.execute(
        update(OutboundMessage)
        .where(
            OutboundMessage.state == "sending",
            OutboundMessage.lease_expires_at <= func.clock_timestamp(),
        )
        .values(
            state="unknown",
            settled_at=func.clock_timestamp(),
            error_kind="unknown",
            error_message=LOST_SENDER,
        )
    )
    assert isinstance(result, CursorResult)  # noqa: S101 - what an UPDATE gives
    return result.rowcount


async def find(session: AsyncSession, dedupe_key: str) -> OutboundMessage | None:
    """The tenant's message of this key."""
    found: OutboundMessage | None = await session.scalar(
        select(OutboundMessage).where(OutboundMessage.dedupe_key == dedupe_key)
    )
    return found


def give_up_sender(message: OutboundMessage, now: datetime) -> None:
    """Make a message in ``sending`` whose lease is over ``unknown``."""
    message.state = "unknown"
    message.settled_at = now
    message.error_kind = "unknown"
    message.error_message = LOST_SENDER


async def change_held(
    session: AsyncSession, lease: Lease, states: tuple[str, ...], **values: object
) -> None:
    """Change a message under its lease; StaleLeaseError if the lease or the state is another."""
    result = await session.execute(
        update(OutboundMessage)
        .where(
            OutboundMessage.id == lease.message_id,
            OutboundMessage.attempt == lease.attempt,
            OutboundMessage.lease_token == lease.token,
            OutboundMessage.state.in_(states),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)  # noqa: S101 - what an UPDATE gives
    if result.rowcount != 1:
        raise StaleLeaseError(
            f"Attempt {lease.attempt} at message {lease.message_id} no longer holds its lease."
        )
