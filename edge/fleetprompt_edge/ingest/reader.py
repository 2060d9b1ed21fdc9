"""One look at a watched folder: from what the server lists to what is queued.

1. EXAMINE. Another UIDVALIDITY means that UIDs mean something else: positions are forgotten, which
   mails are known is not (traps 8 and 9).
2. What has a UID above those looked at is listed, in windows, with time of arrival and size only.
3. What arrived before the connector was first started is old and goes no further (traps 10 and 47).
4. Of the rest the header is read, and with it the identity. What is known is bound to its new place.
5. What is new is read as far as its signal needs.
6. One transaction writes the place, the mail, the signal and the position of the folder: a crash
   before it changes nothing, a crash after it repeats nothing (trap 33).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Literal

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.errors import BridgeDownError, EdgeError
from fleetprompt_edge.imap.session import Examined, Head, Seen, Session
from fleetprompt_edge.ingest.fetching import Fetcher, each
from fleetprompt_edge.ingest.pace import Pace
from fleetprompt_edge.ingest.telling import Found, Teller
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.identity import identity
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.ledger import Folder, Unreadable

Role = Literal["inbound", "outgoing", "processed"]
"""``outgoing``: sent mail and drafts, which nobody received. ``processed``: a label that means so."""

BATCH = 100  # messages whose headers are asked for at once
WINDOW = 2_000  # UIDs listed at once
ATTEMPTS = 5  # at a mail that Bridge does not hand out
CUT_OFF = 3  # times that the connection may break over one mail before that mail is set aside


class QueueFullError(EdgeError):
    """As much waits to be sent as may; mail is left in the mailbox until there is room."""

    kind, code = "rate_limit", "queue_full"


@dataclass(frozen=True, slots=True)
class Watched:
    """A folder and what mail in it means."""

    name: str
    role: Role = "inbound"


class Reader:
    """Looks at folders for one profile; each folder is looked at by one thread."""

    def __init__(
        self,
        store: Store,
        fetcher: Fetcher,
        teller: Teller,
        clock: Clock,
        pace: Pace,
        *,
        most_bytes: int,
        stop: Event,
    ) -> None:
        self._store = store
        self._fetcher = fetcher
        self._teller = teller
        self._clock = clock
        self._pace = pace
        self._most_bytes = most_bytes
        self._stop = stop
        self._batch: dict[str, int] = {}
        self._cut_off: dict[tuple[str, int], int] = {}
        self._again: dict[tuple[str, int], float] = {}

    def look(self, session: Session, watched: Watched) -> int:
        """Look at a folder that has its ``baseline`` once; how many signals that made.

        ``QueueFullError`` where there is no room for more.
        """
        examined = session.examine(watched.name)
        folder = self._folder(watched, examined)
        told = self._ask_again(session, watched, folder)
        for last, seen in _windows(session, folder.seen_up_to + 1, examined):
            at = 0
            while at < len(seen):
                size = self._batch.get(watched.name, BATCH)
                told += self._take(session, watched, folder, seen[at : at + size])
                if self._stop.is_set():
                    # The batch may have been left half-way: nothing was written of it then.
                    return told
                at += size
            with self._store.transaction():
                self._store.ledger.advance(folder.id, last)
        return told + self._backfill(session, watched, folder, examined)

    def _folder(self, watched: Watched, examined: Examined) -> Folder:
        with self._store.transaction():
            ledger = self._store.ledger
            folder = ledger.folder(watched.name)
            if folder is None:
                raise LookupError(f"{watched.name} has no baseline")
            if folder.uidvalidity != examined.uidvalidity:
                ledger.restart_folder(folder.id, examined.uidvalidity)
                self._teller.folder_was_reset(folder, examined.uidvalidity)
                folder = ledger.folder(watched.name) or folder
            return folder

    def _take(
        self, session: Session, watched: Watched, folder: Folder, batch: Sequence[Seen]
    ) -> int:
        """Look at a batch of messages, ascending by UID, and write down that it was done."""
        try:
            told = self._look_closer(session, watched, folder, batch, advance=True)
        except BridgeDownError:
            # It may have been one of these messages that broke the connection: come closer to it.
            self._batch[watched.name] = max(1, len(batch) // 4)
            if len(batch) == 1:
                self._set_aside_if_it_cuts(folder, batch[0])
            raise
        self._batch[watched.name] = min(BATCH, self._batch.get(watched.name, BATCH) * 2)
        return told

    def _set_aside_if_it_cuts(self, folder: Folder, seen: Seen) -> None:
        place = (folder.name, seen.uid)
        self._cut_off[place] = self._cut_off.get(place, 0) + 1
        if self._cut_off[place] < CUT_OFF:
            return
        del self._cut_off[place]
        with self._store.transaction():
            self._store.ledger.set_unreadable(folder.id, Unreadable(seen.uid, seen.arrived, 1))
            self._store.ledger.advance(folder.id, seen.uid)

    def _look_closer(
        self,
        session: Session,
        watched: Watched,
        folder: Folder,
        batch: Sequence[Seen],
        *,
        advance: bool,
        backfill: bool = False,
    ) -> int:
        recent = [one for one in batch if backfill or not _arrived_before_us(folder, one.arrived)]
        heads, refused = each(session.heads, [one.uid for one in recent])
        found = []
        # Answers come in any order; what is told keeps the mailbox's.
        for uid, head in sorted(heads.items()):
            headers = Headers(head.header)
            old = uid <= folder.old_up_to and not backfill
            found.append(Found(identity(head, headers), head, headers, old))
        with self._store.transaction():
            new = [one for one in found if self._is_new(watched, one, backfill=backfill)]
        if new:
            self._make_room()
        for _ in new:
            if not self._pace.take(self._stop):
                return 0
        mails, more_refused = self._fetcher.complete(
            session, watched.name, [(one.identity, one.head, one.headers) for one in new]
        )
        by_uid = {mail.head.uid: mail for mail in mails}
        arrived = {one.uid: one.arrived for one in batch}
        told = 0
        with self._store.transaction():
            for one in found:
                if one.head.uid in more_refused:
                    continue
                mail = by_uid.get(one.head.uid)
                told += self._teller.settle(watched.role, folder, one, mail, backfill=backfill)
            for uid in [*refused, *more_refused]:
                missed = Unreadable(uid, arrived[uid], 1, backfill)
                self._store.ledger.set_unreadable(folder.id, missed)
            if advance:
                self._store.ledger.advance(folder.id, batch[-1].uid)
        for uid in [*refused, *more_refused]:
            self._ask_after(folder, uid, 1)
        return told

    def _is_new(self, watched: Watched, found: Found, *, backfill: bool) -> bool:
        if watched.role != "inbound" or found.old:
            return False
        with self._store.transaction():
            known = self._store.ledger.find(found.identity)
        return known is None or known.state == "outgoing" or (backfill and known.state == "known")

    def _make_room(self) -> None:
        with self._store.transaction():
            waiting = self._store.queue.bytes_waiting()
        if waiting >= self._most_bytes:
            raise QueueFullError(
                f"{waiting} bytes of signals wait to be sent, as many as limits.max_queue_bytes allows; "
                "new mail stays in the mailbox.",
                remedy="See why FleetPrompt does not take them: `fleetprompt-edge doctor`, `queue list`.",
            )

    def _ask_after(self, folder: Folder, uid: int, attempts: int) -> None:
        self._again[folder.name, uid] = self._clock.monotonic() + 30 * 4 ** (attempts - 1)

    def _ask_again(self, session: Session, watched: Watched, folder: Folder) -> int:
        """Ask for mails that were refused, ever more seldom; after the last time tell of that."""
        told = 0
        with self._store.transaction():
            waiting = self._store.ledger.unreadable(folder.id)
        for mail in waiting:
            if self._again.get((folder.name, mail.uid), 0.0) > self._clock.monotonic():
                continue
            told += self._ask_for(session, watched, folder, mail)
        return told

    def _ask_for(self, session: Session, watched: Watched, folder: Folder, mail: Unreadable) -> int:
        ledger = self._store.ledger
        attempts = mail.attempts + 1
        # Counted before it is tried: a mail that kills the connection is tried a few times only.
        with self._store.transaction():
            ledger.set_unreadable(folder.id, mail._replace(attempts=attempts))
        self._ask_after(folder, mail.uid, attempts)
        heads, refused = (
            each(session.heads, [mail.uid]) if attempts <= ATTEMPTS else ({}, [mail.uid])
        )
        if not heads and not refused:
            with self._store.transaction():
                ledger.clear_unreadable(folder.id, mail.uid)
            return 0
        head = heads.get(mail.uid)
        if head is None:
            return self._give_up(folder, mail) if attempts >= ATTEMPTS else 0
        late = mail._replace(attempts=attempts)
        return self._settle_late(session, watched, folder, head, late)

    def _settle_late(
        self, session: Session, watched: Watched, folder: Folder, head: Head, late: Unreadable
    ) -> int:
        headers = Headers(head.header)
        old = head.uid <= folder.old_up_to and not late.backfill
        found = Found(identity(head, headers), head, headers, old)
        mail = None
        if self._is_new(watched, found, backfill=late.backfill):
            new = (found.identity, head, headers)
            mails, refused = self._fetcher.complete(session, watched.name, [new])
            if refused and late.attempts < ATTEMPTS:
                return 0
            mail = mails[0] if mails else self._fetcher.bare(watched.name, *new)
        with self._store.transaction():
            self._store.ledger.clear_unreadable(folder.id, head.uid)
            return self._teller.settle(watched.role, folder, found, mail, backfill=late.backfill)

    def _give_up(self, folder: Folder, mail: Unreadable) -> int:
        with self._store.transaction():
            self._store.ledger.clear_unreadable(folder.id, mail.uid)
            if mail.uid <= folder.old_up_to and not mail.backfill:
                return 0
            return self._teller.failed(folder, mail)

    def _backfill(
        self, session: Session, watched: Watched, folder: Folder, examined: Examined
    ) -> int:
        """Go on with a backfill that was asked for."""
        ledger = self._store.ledger
        with self._store.transaction():
            asked = ledger.backfill(folder.id)
        if asked is None:
            return 0
        told = 0
        for last, seen in _windows(session, asked.done_up_to + 1, examined):
            wanted = [one for one in seen if one.arrived is not None and one.arrived >= asked.since]
            for at in range(0, len(wanted), BATCH):
                batch = wanted[at : at + BATCH]
                told += self._look_closer(
                    session, watched, folder, batch, advance=False, backfill=True
                )
                if self._stop.is_set():
                    return told
                with self._store.transaction():
                    ledger.advance_backfill(folder.id, batch[-1].uid)
            with self._store.transaction():
                ledger.advance_backfill(folder.id, last)
        with self._store.transaction():
            # Not before every mail of it was read: a new UIDVALIDITY would make it begin anew.
            if not any(one.backfill for one in ledger.unreadable(folder.id)):
                ledger.end_backfill(folder.id)
        return told


def _arrived_before_us(folder: Folder, arrived: int | None) -> bool:
    return arrived is not None and arrived < folder.old_before


def _windows(session: Session, first: int, examined: Examined) -> Iterator[tuple[int, list[Seen]]]:
    """What is listed from UID ``first`` on, in windows that hold little at a time however dense or
    sparse the UIDs are: the last UID of each and what is in it, ascending."""
    step = WINDOW if examined.messages > 2 * WINDOW else examined.uidnext
    while first < examined.uidnext:
        last = min(first + step - 1, examined.uidnext - 1)
        found = sorted(session.scan(first, last))
        yield last, found
        first = last + 1
        if len(found) < WINDOW // 4:
            step *= 2
        elif len(found) > 2 * WINDOW:
            step = WINDOW
