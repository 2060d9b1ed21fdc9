"""One message to the other side, once, whatever is dropped, delayed or killed on the way.

1. The ledger gives the right to send it to one attempt.
2. The way finds out where it goes: requests without effects, so their failures are harmless.
3. ``sending`` is committed with the place, then the message is sent, at the latest well before the
   lease is over. Where nothing has to be found out, this is committed with the first.
4. What the answer means is committed. An answer that leaves doubt, and a sender that died, leave the
   message ``unknown``.
5. Where the way can look, an unknown message is looked for: found, it is posted. Certainly not there
   (``doubt.py``), it is sent again under the same key. Where it cannot, it stays unknown.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from fleetprompt.db.engine import Database
from fleetprompt.directives.failures import DirectiveFailed, OutcomeUnknown
from fleetprompt.errors import DatabaseUnavailableError, ErrorKind, OverloadedError, StaleLeaseError
from fleetprompt.outbound import doubt, ledger
from fleetprompt.outbound.ledger import LEASE_SECONDS, Intent, Lease, Mark
from fleetprompt.outbound.models import OutboundMessage
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.sighting import Sighting

# Pauses in seconds while the database is away between a post and its entry in the ledger.
_PAUSES = (0.2, 1.0, 3.0, 10.0)
# Pauses before looks for a message that was posted by an answer which does not name it.
_PROOF_PAUSES = (0.0, 0.3, 1.0, 3.0)
# The first byte leaves within this time or not at all.
_SEND_WITHIN_SECONDS = LEASE_SECONDS / 2

_LOOKED_ELSEWHERE = Sighting(
    None,
    False,
    "unknown",
    "The one before it certainly was posted, and is not to be seen there either: the webhook may post to "
    "another team or server than the token reads. Look into the channel, and connect both to the same team.",
)


class Way(Protocol):
    """A transport with one message and its destination."""

    @property
    def can_look(self) -> bool:
        """Whether a message can be looked for on the other side."""

    @property
    def known_mark(self) -> Mark | None:
        """Where the message goes, if ``prepare`` would only say so without asking anybody."""

    async def prepare(self) -> Mark | Outcome:
        """Where the message goes, without any effect; an Outcome that is never posted or unknown."""

    async def send(self, key: str, not_after: float) -> Outcome:
        """Send it once under its key."""

    async def look(self, key: str, mark: Mark) -> Sighting:
        """Look for the message of this key where ``mark`` says."""

    def permalink(self, remote_id: str) -> str | None:
        """The message's address for people."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message that is posted; ``remote_id`` is unset where nobody can know it (yet)."""

    message_id: UUID
    remote_id: str | None
    permalink: str | None


OnPosted = Callable[[AsyncSession], Awaitable[None]]
OnDelivered = Callable[[AsyncSession, Delivered], Awaitable[None]]


def key_of(message_id: UUID) -> str:
    """What the message carries: the same in every attempt, and nobody can guess it."""
    return f"fleetprompt:{message_id}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way. ``on_posted`` runs in the transaction that makes it posted.

    Where they are set, ``beside`` runs in the transaction that claims it, and ``on_delivered`` ahead of
    everything else in that which makes it posted, if the answer tells all that can be known.
    ``patience`` is in seconds, as in ``doubt.py``. ``word`` is the id of a directive by which a person
    wants an unknown message posted again.
    """

    database: Database
    schema: str
    intent: Intent
    way: Way
    on_posted: OnPosted
    patience: float
    word: UUID | None = None
    beside: OnPosted | None = None
    on_delivered: OnDelivered | None = None

    async def deliver(self) -> Delivered:
        """Send the message unless it is there; raises DirectiveFailed or OutcomeUnknown otherwise."""
        mark, not_after = self.way.known_mark, _latest_start()
        async with self.database.tenant(self.schema) as session:
            entry = await ledger.plan_and_claim(session, self.intent)
            if self.beside is not None:
                await self.beside(session)
            if entry.lease is not None and mark is not None:
                await ledger.begin_sending(session, entry.lease, mark)
        if entry.lease is not None and mark is not None:
            return await self._send_begun(entry.lease, not_after)
        if entry.lease is not None:
            return await self._send(entry.lease)
        if entry.state == "posted":
            return await self._proven(entry.row)
        kind: ErrorKind = cast("Any", entry.error_kind) or "unknown"
        words = entry.error_message or f"the message is {entry.state}"
        match entry.state:
            case "unknown":
                return await self._resolve(entry.row, kind, words)
            case "rejected":
                if self.word is None or entry.row.resolved_by == self.word:
                    raise DirectiveFailed(kind, words)
                async with self.database.tenant(self.schema) as session:
                    lease = await doubt.take_refused(session, entry.row.id, resolved_by=self.word)
                if lease is not None:
                    return await self._send(lease)
            case "retryable":
                raise DirectiveFailed(kind, words, retry_after=entry.wait)
        raise DirectiveFailed(
            "network", "Another attempt is sending this message.", retry_after=entry.wait + 1
        )

    async def look(self, row: OutboundMessage) -> Delivered | None:
        """Look for a message that is unknown, or posted without being seen; send nothing."""
        if row.state == "posted":
            found = await self._proven(row)
            return found if found.remote_id else None
        held, sighting = await self._look(row)
        if sighting.remote_id is not None:
            return await self._found(held.lease, row, sighting.remote_id)
        async with self.database.tenant(self.schema) as session:
            await doubt.release(session, held.lease)
        if not sighting.complete:
            raise _not_seen(sighting)
        return None

    async def _send(self, lease: Lease) -> Delivered:
        mark = await self.way.prepare()
        if isinstance(mark, Outcome):
            await self._settle(lease, mark)
            raise _failed(mark)
        not_after = _latest_start()
        async with self.database.tenant(self.schema) as session:
            await ledger.begin_sending(session, lease, mark)
        return await self._send_begun(lease, not_after)

    async def _send_begun(self, lease: Lease, not_after: float) -> Delivered:
        outcome = await self.way.send(key_of(lease.message_id), not_after)
        await self._settle(lease, outcome)
        if outcome.state not in ("posted", "unknown"):
            raise _failed(outcome)
        if (delivered := self._known(lease, outcome)) is not None:
            return delivered
        async with self.database.tenant(self.schema) as session:
            row = await doubt.read(session, lease.message_id)
        if outcome.state == "posted":
            return await self._proven(row)
        if not self.way.can_look or row.remote_place is None:
            raise OutcomeUnknown(outcome.message, error_kind=outcome.error_kind or "unknown")
        return await self._prove(row)

    async def _settle(self, lease: Lease, outcome: Outcome) -> None:
        remote_id = outcome.remote_id
        delivered = self._known(lease, outcome)

        async def record(session: AsyncSession) -> None:
            if delivered is not None and self.on_delivered is not None:
                await self.on_delivered(session, delivered)
            await ledger.settle(
                session,
                lease,
                outcome.state,
                error_kind=outcome.error_kind,
                error_message=outcome.message or None,
                retry_in=outcome.retry_after_seconds if outcome.state == "retryable" else None,
                remote_id=remote_id,
                permalink=self.way.permalink(remote_id) if remote_id else None,
            )
            if outcome.state == "posted":
                await self.on_posted(session)

        await self._commit(lease, outcome.state, record)

    def _known(self, lease: Lease, outcome: Outcome) -> Delivered | None:
        """What was posted, if the answer tells all that can be known of it."""
        if outcome.state != "posted" or not (outcome.remote_id or not self.way.can_look):
            return None
        permalink = self.way.permalink(outcome.remote_id) if outcome.remote_id else None
        return Delivered(lease.message_id, outcome.remote_id, permalink)

    async def _resolve(self, row: OutboundMessage, kind: ErrorKind, words: str) -> Delivered:
        """What an unknown message allows: proof, a person's word, or nothing."""
        if row.resolution == "given_up" and self.word is None:
            raise OutcomeUnknown("The message was given up.", error_kind=kind)
        if self.word is not None and row.resolved_by != self.word:
            return await self._post_by_word(row)
        if not self.way.can_look or row.remote_place is None:
            raise OutcomeUnknown(words, error_kind=kind)
        return await self._prove(row)

    async def _post_by_word(self, row: OutboundMessage) -> Delivered:
        """Look once more where that is possible, then send: the person knows that it may be a second."""
        held = await self._take(row)
        if self.way.can_look and row.remote_place is not None and self._same_server(row):
            sighting = await self.way.look(key_of(row.id), _mark(row))
            if sighting.remote_id is not None:
                return await self._found(held.lease, row, sighting.remote_id)
        async with self.database.tenant(self.schema) as session:
            await doubt.free_to_send(session, held.lease, resolved_by=self.word)
        return await self._send(held.lease)

    async def _prove(self, row: OutboundMessage) -> Delivered:
        held, sighting = await self._look(row)
        if sighting.remote_id is not None:
            return await self._found(held.lease, row, sighting.remote_id)
        if sighting.complete and not await self._looks_where_it_posts(row):
            sighting = _LOOKED_ELSEWHERE
        async with self.database.tenant(self.schema) as session:
            if not sighting.complete:
                await doubt.release(session, held.lease)
                wait = None
            else:
                wait = await doubt.note_absence(session, held, self.patience)
        if wait is None:
            raise _not_seen(sighting)
        if wait > 0:
            raise DirectiveFailed(
                "network",
                "The answer was lost, and the message is not there so far; it will be looked for again.",
                retry_after=wait,
            )
        return await self._send(held.lease)

    async def _looks_where_it_posts(self, row: OutboundMessage) -> bool:
        """Whether the last message that certainly was posted to the same place, if any, is seen there."""
        async with self.database.tenant(self.schema) as session:
            last = await doubt.last_unseen(session, row)
        if last is None:
            return True
        return (await self._proven(last)).remote_id is not None

    async def _look(self, row: OutboundMessage) -> tuple[doubt.Held, Sighting]:
        if not self._same_server(row):
            raise OutcomeUnknown(
                "The message went to another server than the one that is connected now; look there."
            )
        held = await self._take(row)
        return held, await self.way.look(key_of(row.id), _mark(row))

    async def _take(self, row: OutboundMessage) -> doubt.Held:
        async with self.database.tenant(self.schema) as session:
            held = await doubt.take(session, row.id)
        if held is None:
            raise DirectiveFailed(
                "network", "Another attempt is at work on this message.", retry_after=LEASE_SECONDS
            )
        return held

    async def _found(self, lease: Lease, row: OutboundMessage, remote_id: str) -> Delivered:
        permalink = self.way.permalink(remote_id)

        async def record(session: AsyncSession) -> None:
            await ledger.settle(
                session,
                lease,
                "posted",
                remote_id=remote_id,
                permalink=permalink,
                proof="read_back",
            )
            await self.on_posted(session)

        await self._commit(lease, "posted", record)
        return Delivered(row.id, remote_id, permalink)

    async def _proven(self, row: OutboundMessage) -> Delivered:
        """A posted message with its id, looked for where the answer did not name it."""
        unseen = row.remote_id is None and row.remote_place is not None
        if not unseen or not self.way.can_look or not self._same_server(row):
            return Delivered(row.id, row.remote_id, row.permalink)
        for pause in _PROOF_PAUSES:
            await asyncio.sleep(pause)
            sighting = await self.way.look(key_of(row.id), _mark(row))
            if sighting.remote_id is None:
                continue
            permalink = self.way.permalink(sighting.remote_id)
            async with self.database.tenant(self.schema) as session:
                await doubt.note_proof(
                    session, row.id, remote_id=sighting.remote_id, permalink=permalink
                )
            return Delivered(row.id, sighting.remote_id, permalink)
        return Delivered(row.id, None, None)

    def _same_server(self, row: OutboundMessage) -> bool:
        return row.destination.split("#")[0] == self.intent.destination.split("#")[0]

    async def _commit(self, lease: Lease, state: str, record: OnPosted) -> None:
        """Write down what is known, also when the database is away for a while."""
        for tried, pause in enumerate((*_PAUSES, None)):
            try:
                async with self.database.tenant(self.schema) as session:
                    await record(session)
            except (DatabaseUnavailableError, OverloadedError):
                if pause is None:
                    raise
                await asyncio.sleep(pause)
            except StaleLeaseError:
                # The commit before may have taken place though its answer was lost.
                if not tried or not await self._is_settled(lease, state):
                    raise
                return
            else:
                return

    async def _is_settled(self, lease: Lease, state: str) -> bool:
        async with self.database.tenant(self.schema) as session:
            row = await doubt.read(session, lease.message_id)
        return (row.state, row.attempt) == (state, lease.attempt)


def _latest_start() -> float:
    return time.monotonic() + _SEND_WITHIN_SECONDS


def _mark(row: OutboundMessage) -> Mark:
    return Mark(row.remote_place, row.remote_author, row.remote_time)


def _failed(outcome: Outcome) -> DirectiveFailed:
    return DirectiveFailed(
        outcome.error_kind or "unknown", outcome.message, retry_after=outcome.retry_after_seconds
    )


def _not_seen(sighting: Sighting) -> DirectiveFailed:
    """It may still become clear: another attempt looks again, whatever the class of the failure."""
    kind = sighting.error_kind if sighting.error_kind in ("rate_limit", "network") else "unknown"
    return DirectiveFailed(
        kind,
        f"It could not be looked whether the message is there. {sighting.message}",
        retry_after=sighting.retry_after_seconds,
    )
