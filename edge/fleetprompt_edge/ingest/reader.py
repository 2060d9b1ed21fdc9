"""One look at a watched folder: from what the server lists to what is queued.

1. EXAMINE. Another UIDVALIDITY means that UIDs mean something else: positions are forgotten, which
   mails are known is not (traps 8 and 9).
2. What has a UID above those looked at is listed, in windows, with time of arrival and size only.
3. What arrived before the connector was first started is old and goes no further (traps 10 and 47).
4. Of the rest the two header fields are read that say which mail it is. What is known is bound to its
   new place.
5. What is new is read as far as its signal needs.
6. One transaction writes the place, the mail, the signal and the position of the folder: a crash
   before it changes nothing, a crash after it repeats nothing (trap 33).
"""

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from threading import Event
from typing import NamedTuple

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.errors import BridgeDownError, EdgeError
from fleetprompt_edge.imap.session import Examined, Seen, Session
from fleetprompt_edge.ingest.fetching import Fetcher, each, identified
from fleetprompt_edge.ingest.later import Later
from fleetprompt_edge.ingest.pace import Pace
from fleetprompt_edge.ingest.telling import Found, Role, Teller
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.signals import Mail
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.ledger import Folder, Unreadable

IDENTIFIED = 500  # messages whose identities are asked for at once
BATCH = 50  # messages of which more than that is asked for at once, and held in memory
WINDOW = 2_000  # UIDs listed at once
BACKFILL_SECONDS = 15.0  # after which new mail has its turn before a backfill goes on
LOOKED_FOR_SINCE = "looked_for_since:"  # note, by entry of the profile: epoch s
CUT_OFF = 3  # times that the connection may break over one mail before that mail is set aside


class QueueFullError(EdgeError):
    """As much waits to be sent as may; mail is left in the mailbox until there is room."""

    kind, code = "rate_limit", "queue_full"


@dataclass(frozen=True, slots=True)
class Watched:
    """A folder and what mail in it means. ``meant_by``: the profile's entry, if it is not the name."""

    name: str
    role: Role = "inbound"
    meant_by: str | None = field(default=None, compare=False)

    @property
    def entry(self) -> str:
        """The profile's entry that means this folder."""
        return self.meant_by or self.name


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
        self._unfinished: set[str] = set()
        self._later = Later(store, fetcher, teller, clock)

    def look(self, session: Session, watched: Watched) -> int:
        """Look once at a folder whose entry has its ``baseline``; how many signals that made.

        ``QueueFullError`` where there is no room for more.
        """
        examined = session.examine(watched.name)
        folder = self._folder(watched, examined)
        told = self._later.ask(session, watched.role, folder)
        for window in _windows(session, folder.seen_up_to + 1, examined):
            rest: _Window | None = window
            while rest is not None:
                size = self._batch.get(watched.name, IDENTIFIED)
                batch, rest = _batch(rest, size)
                told += self._take(session, watched, folder, batch)
                if self._stop.is_set():
                    # The batch may have been left half-way: nothing was written of it then.
                    return told
        return told + self._backfill(session, watched, folder, examined)

    def unfinished(self, watched: Watched) -> bool:
        """Whether the last look at a folder ended before a backfill did, so that another should follow."""
        return watched.name in self._unfinished

    def _folder(self, watched: Watched, examined: Examined) -> Folder:
        with self._store.transaction():
            ledger = self._store.ledger
            folder = ledger.folder(watched.name)
            if folder is None:
                return self._late(watched, examined)
            if folder.uidvalidity != examined.uidvalidity:
                ledger.restart_folder(folder.id, examined.uidvalidity)
                self._teller.folder_was_reset(folder, examined.uidvalidity)
                folder = ledger.folder(watched.name) or folder
            return folder

    def _late(self, watched: Watched, examined: Examined) -> Folder:
        """A folder that came since it was first looked for: nothing is old in it but what arrived before."""
        ledger = self._store.ledger
        since = self._store.notes.get(LOOKED_FOR_SINCE + watched.entry)
        if since is None:
            raise LookupError(f"{watched.name} has no baseline")
        ledger.add_folder(watched.name, examined.uidvalidity, 0, int(since))
        folder = ledger.folder(watched.name)
        assert folder is not None  # noqa: S101 - added above
        return folder

    def _take(self, session: Session, watched: Watched, folder: Folder, batch: "_Batch") -> int:
        """Look at a batch of messages, and write down that it was done."""
        try:
            told = self._look_closer(session, watched, folder, batch)
        except BridgeDownError:
            # It may have been one of these messages that broke the connection: come closer to it.
            self._batch[watched.name] = max(1, len(batch.seen) // 4)
            if len(batch.seen) == 1:
                self._set_aside_if_it_cuts(folder, batch.seen[0])
            raise
        self._batch[watched.name] = min(IDENTIFIED, self._batch.get(watched.name, IDENTIFIED) * 2)
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
        batch: "_Batch",
        *,
        backfill: bool = False,
        until: float = math.inf,
    ) -> int:
        recent, then = (
            [one for one in some if backfill or not _arrived_before_us(folder, one.arrived)]
            for some in (batch.seen, batch.then)
        )
        identities, refused = identified(session, recent, then)
        found = [
            Found(seen.uid, name, seen.arrived, seen.uid <= folder.old_up_to and not backfill)
            for seen, name in identities
        ]
        with self._store.transaction():
            known = self._teller.known(found)
            new = self._teller.untold(watched.role, found, known, backfill=backfill)
        arrived = {one.uid: one.arrived for one in batch.seen}
        # Before any position goes past them.
        self._later.set_aside(folder, {uid: arrived[uid] for uid in refused}, backfill=backfill)
        told = 0
        # No more at once than a minute lets through: nobody waits on an open connection for longer.
        most = min(BATCH, self._pace.per_minute)
        for up_to, group in _groups(found, new, batch.up_to, most):
            wanted = [one for one in group if one.uid in new]
            mails, unwanted, refused = self._read(session, watched, wanted)
            if self._stop.is_set():
                return told
            with self._store.transaction():
                self._later.set_aside(
                    folder, {uid: arrived[uid] for uid in refused}, backfill=backfill
                )
                # A mail that is gone by now is found where it went.
                here = [one for one in group if one.uid not in new - unwanted or one.uid in mails]
                told += self._teller.settle(
                    watched.role, folder, here, mails, known, backfill=backfill
                )
                if backfill:
                    self._store.ledger.advance_backfill(folder.id, up_to)
                else:
                    self._store.ledger.advance(folder.id, up_to)
            if self._clock.monotonic() >= until:
                return told
        return told

    def _read(
        self, session: Session, watched: Watched, new: Sequence[Found]
    ) -> tuple[dict[int, Mail], set[int], list[int]]:
        """What the signals of these mails need, by UID; the UIDs of those that the profile excludes, and of
        those that are refused."""
        if not new:
            return {}, set(), []
        self._make_room()
        for _ in new:
            if not self._pace.take(self._stop):
                return {}, set(), []
        heads, refused = each(session.heads, [one.uid for one in new])
        headers = {uid: Headers(head.header) for uid, head in heads.items()}
        unwanted = {uid for uid in headers if not self._fetcher.wants(headers[uid])}
        mails, more_refused = self._fetcher.complete(
            session,
            watched.name,
            [
                (one.identity, heads[one.uid], headers[one.uid])
                for one in new
                if one.uid in heads and one.uid not in unwanted
            ],
        )
        return {mail.head.uid: mail for mail in mails}, unwanted, refused + more_refused

    def _make_room(self) -> None:
        with self._store.transaction():
            waiting = self._store.queue.bytes_waiting()
        if waiting >= self._most_bytes:
            raise QueueFullError(
                f"{waiting} bytes of signals wait to be sent, as many as limits.max_queue_bytes allows; "
                "new mail stays in the mailbox.",
                remedy="See why FleetPrompt does not take them: `fleetprompt-edge doctor`, `queue list`.",
            )

    def _backfill(
        self, session: Session, watched: Watched, folder: Folder, examined: Examined
    ) -> int:
        """Go on with a backfill that was asked for, for a while."""
        ledger = self._store.ledger
        self._unfinished.discard(watched.name)
        until = self._clock.monotonic() + BACKFILL_SECONDS
        with self._store.transaction():
            asked = ledger.backfill(folder.id)
        if asked is None:
            return 0
        told = 0
        for last, seen in _windows(session, asked.done_up_to + 1, examined):
            wanted = [one for one in seen if one.arrived is not None and one.arrived >= asked.since]
            rest: _Window | None = _Window(last, wanted)
            while rest is not None:
                batch, rest = _batch(rest, IDENTIFIED)
                told += self._look_closer(
                    session, watched, folder, batch, backfill=True, until=until
                )
                if self._stop.is_set():
                    return told
                if self._clock.monotonic() >= until:
                    self._unfinished.add(watched.name)
                    return told
        with self._store.transaction():
            # Not before every mail of it was read: a new UIDVALIDITY would make it begin anew.
            if not any(one.backfill for one in ledger.unreadable(folder.id)):
                ledger.end_backfill(folder.id)
        return told


def _arrived_before_us(folder: Folder, arrived: int | None) -> bool:
    return arrived is not None and arrived < folder.old_before


class _Window(NamedTuple):
    """A range of UIDs that was listed: the last UID of it, and what is there, ascending."""

    last: int
    seen: Sequence[Seen]


class _Batch(NamedTuple):
    """Messages to look at, ascending; how far all is done after them; what comes next, to be sent ahead."""

    seen: Sequence[Seen]
    up_to: int
    then: Sequence[Seen]


def _batch(window: _Window, size: int) -> tuple[_Batch, _Window | None]:
    """The next so many messages, and what is left."""
    seen, rest = window.seen[:size], window.seen[size:]
    # What breaks the connection is found in small batches, of which none may answer for another.
    then = rest[:size] if size == IDENTIFIED else []
    if rest:
        return _Batch(seen, seen[-1].uid, then), _Window(window.last, rest)
    return _Batch(seen, window.last, then), None


def _groups(
    found: Sequence[Found], new: Set[int], up_to: int, most: int
) -> Iterator[tuple[int, Sequence[Found]]]:
    """In pieces with at most so many new mails each, at least one, and how far all is done after each."""
    begin = count = 0
    for at, one in enumerate(found, start=1):
        count += one.uid in new
        if count == most and at < len(found):
            yield one.uid, found[begin:at]
            begin, count = at, 0
    yield up_to, found[begin:]


def _windows(session: Session, first: int, examined: Examined) -> Iterator[_Window]:
    """What is listed from UID ``first`` on, in windows that hold little at a time however dense or
    sparse the UIDs are."""
    step = WINDOW if examined.messages > 2 * WINDOW else examined.uidnext
    while first < examined.uidnext:
        last = min(first + step - 1, examined.uidnext - 1)
        found = sorted(session.scan(first, last))
        yield _Window(last, found)
        first = last + 1
        if len(found) < WINDOW // 4:
            step *= 2
        elif len(found) > 2 * WINDOW:
            step = WINDOW
