"""What may be done about a message of which nobody knows whether it arrived.

It may be looked for, where the other side can be read: found, it was posted, whatever the answer
was. Not found is no proof by itself: the request may still be on its way and a replica may lag
behind. So its absence counts once the sending has been over for ``patience`` seconds, and only when a
second complete look, another ``patience`` later, does not find it either
(docs/decisions/posting-once.md). A person may also have it posted again, or give it up.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.errors import NotFoundError
from fleetprompt.ids import new_id
from fleetprompt.outbound.ledger import LEASE_SECONDS, Lease, change_held, give_up_sender
from fleetprompt.outbound.models import OutboundMessage

_UNKNOWN = ("unknown",)


@dataclass(frozen=True, slots=True)
class Held:
    """An unknown message in the hands of one who looks for it, since ``at`` (the database's time)."""

    lease: Lease
    at: datetime
    sending_over_at: datetime
    absent_at: datetime | None


async def read(session: AsyncSession, message_id: UUID, *, lock: bool = False) -> OutboundMessage:
    """The tenant's message of this id; NotFoundError otherwise."""
    query = select(OutboundMessage).where(OutboundMessage.id == message_id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found = await session.scalar(query)
    if found is None:
        raise NotFoundError(f"There is no outbound message {message_id}.")
    return found


async def take(
    session: AsyncSession, message_id: UUID, *, lease_seconds: float = LEASE_SECONDS
) -> Held | None:
    """Take an unknown message to look for it; None if it is not unknown, or in other hands."""
    message = await read(session, message_id, lock=True)
    now: datetime = (await session.execute(select(func.clock_timestamp()))).scalar_one()
    lease_over = message.lease_expires_at is None or message.lease_expires_at <= now
    if not lease_over:
        return None
    if message.state == "sending":
        give_up_sender(message, now)
    if message.state != "unknown":
        return None
    message.attempt += 1
    message.lease_token = token = new_id()
    message.lease_expires_at = await session.scalar(
        select(func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, lease_seconds))
    )
    await session.flush()
    return Held(
        Lease(message.id, message.attempt, token),
        now,
        message.settled_at or now,
        message.absent_at,
    )


async def note_absence(session: AsyncSession, held: Held, patience: float) -> float:
    """Note a complete look, begun after ``take``, that found nothing; seconds until the next one.

    0.0: it is certainly not there, and ``held.lease`` is now the right to send it.
    """
    since_over = (held.at - held.sending_over_at).total_seconds()
    if since_over < patience:
        await release(session, held.lease)
        return patience - since_over
    if held.absent_at is None:
        await change_held(session, held.lease, _UNKNOWN, absent_at=held.at, lease_expires_at=None)
        return patience
    since_first = (held.at - held.absent_at).total_seconds()
    if since_first < patience:
        await release(session, held.lease)
        return patience - since_first
    await free_to_send(session, held.lease)
    return 0.0


async def last_unseen(session: AsyncSession, message: OutboundMessage) -> OutboundMessage | None:
    """The last message that certainly was posted to the same place, if it was not seen there so far.

    What is posted through one door and looked for through another may have gone elsewhere: then its
    absence proves nothing.
    """
    last = await session.scalar(
        select(OutboundMessage)
        .where(
            OutboundMessage.provider == message.provider,
            OutboundMessage.remote_place == message.remote_place,
            OutboundMessage.state == "posted",
        )
        .order_by(OutboundMessage.settled_at.desc())
        .limit(1)
    )
    return last if last is not None and last.remote_id is None else None


async def free_to_send(
    session: AsyncSession, lease: Lease, *, resolved_by: UUID | None = None
) -> None:
    """Make the lease on an unknown message the right to send it; ``resolved_by`` is a directive.

    Without one, it is because the message is certainly not there.
    """
    await change_held(
        session, lease, _UNKNOWN, state="claimed", **_sendable("posted_again", resolved_by)
    )


async def take_refused(
    session: AsyncSession, message_id: UUID, *, resolved_by: UUID
) -> Lease | None:
    """The right to send a rejected message after all; None if it is not rejected (any more)."""
    message = await read(session, message_id, lock=True)
    if message.state != "rejected":
        return None
    message.state = "claimed"
    message.attempt += 1
    message.lease_token = token = new_id()
    await session.flush()
    lease = Lease(message.id, message.attempt, token)
    await change_held(session, lease, ("claimed",), **_sendable("posted_again", resolved_by))
    return lease


async def release(session: AsyncSession, lease: Lease) -> None:
    """Let go of an unknown message without having learned anything."""
    await change_held(session, lease, _UNKNOWN, lease_expires_at=None)


async def give_up(session: AsyncSession, message_id: UUID, *, resolved_by: UUID) -> bool:
    """Note that an unknown message shall be left alone; whether it was one in nobody's hands."""
    result = await session.execute(
        update(OutboundMessage)
        .where(
            OutboundMessage.id == message_id,
            OutboundMessage.state == "unknown",
            OutboundMessage.lease_expires_at.is_(None)
            | (OutboundMessage.lease_expires_at <= func.clock_timestamp()),
        )
        .values(**_resolution("given_up", resolved_by))
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)  # noqa: S101 - what an UPDATE gives
    return result.rowcount == 1


async def note_proof(
    session: AsyncSession, message_id: UUID, *, remote_id: str, permalink: str | None
) -> None:
    """Note that a posted message was found, under which id and address."""
    await session.execute(
        update(OutboundMessage)
        .where(
            OutboundMessage.id == message_id,
            OutboundMessage.state == "posted",
            OutboundMessage.remote_id.is_(None),
        )
        .values(remote_id=remote_id, permalink=permalink, proof="read_back")
        .execution_options(synchronize_session=False)
    )


def _sendable(kind: str, directive_id: UUID | None) -> dict[str, object]:
    return {
        "lease_expires_at": func.clock_timestamp()
        + func.make_interval(0, 0, 0, 0, 0, 0, LEASE_SECONDS),
        "settled_at": None,
        "absent_at": None,
        **_resolution(kind, directive_id),
    }


def _resolution(kind: str, directive_id: UUID | None) -> dict[str, object]:
    if directive_id is None:
        return {}
    return {
        "resolution": kind,
        "resolved_by": directive_id,
        "resolved_at": func.clock_timestamp(),
    }
