"""Mails that Bridge did not hand out: asked for ever more seldom, and after the last time told as failed."""

from collections.abc import Mapping

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.imap.session import Head, Session
from fleetprompt_edge.ingest.fetching import Fetcher, each
from fleetprompt_edge.ingest.telling import Found, Role, Teller
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.identity import identity
from fleetprompt_edge.mail.signals import Mail
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.ledger import Folder, Unreadable

ATTEMPTS = 5  # at a mail that Bridge does not hand out


class Later:
    """Asks again; each folder is asked about by one thread."""

    def __init__(self, store: Store, fetcher: Fetcher, teller: Teller, clock: Clock) -> None:
        self._store = store
        self._fetcher = fetcher
        self._teller = teller
        self._clock = clock
        self._again: dict[tuple[str, int], float] = {}

    def set_aside(
        self, folder: Folder, refused: Mapping[int, int | None], *, backfill: bool
    ) -> None:
        """Ask later for mails, by UID with the time of arrival, that Bridge did not hand out."""
        if not refused:
            return
        with self._store.transaction():
            for uid, arrived in refused.items():
                missed = Unreadable(uid, arrived, 1, backfill)
                self._store.ledger.set_unreadable(folder.id, missed)
        for uid in refused:
            self._ask_after(folder, uid, 1)

    def _ask_after(self, folder: Folder, uid: int, attempts: int) -> None:
        self._again[folder.name, uid] = self._clock.monotonic() + 30 * 4 ** (attempts - 1)

    def ask(self, session: Session, role: Role, folder: Folder) -> int:
        """Ask for mails that were refused, ever more seldom; after the last time tell of that."""
        told = 0
        with self._store.transaction():
            waiting = self._store.ledger.unreadable(folder.id)
        for mail in waiting:
            if self._again.get((folder.name, mail.uid), 0.0) > self._clock.monotonic():
                continue
            told += self._ask_for(session, role, folder, mail)
        return told

    def _ask_for(self, session: Session, role: Role, folder: Folder, mail: Unreadable) -> int:
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
        return self._settle_late(session, role, folder, head, late)

    def _settle_late(
        self, session: Session, role: Role, folder: Folder, head: Head, late: Unreadable
    ) -> int:
        headers = Headers(head.header)
        name = identity(head, headers)
        arrived = int(head.arrived.timestamp()) if head.arrived else None
        found = Found(head.uid, name, arrived, head.uid <= folder.old_up_to and not late.backfill)
        mails: dict[int, Mail] = {}
        if self._fetcher.wants(headers) and self._is_untold(role, found, backfill=late.backfill):
            read, refused = self._fetcher.complete(session, folder.name, [(name, head, headers)])
            if refused and late.attempts < ATTEMPTS:
                return 0
            mails[head.uid] = (
                read[0] if read else self._fetcher.bare(folder.name, name, head, headers)
            )
        with self._store.transaction():
            self._store.ledger.clear_unreadable(folder.id, head.uid)
            known = self._teller.known([found])
            return self._teller.settle(role, folder, [found], mails, known, backfill=late.backfill)

    def _give_up(self, folder: Folder, mail: Unreadable) -> int:
        with self._store.transaction():
            self._store.ledger.clear_unreadable(folder.id, mail.uid)
            if mail.uid <= folder.old_up_to and not mail.backfill:
                return 0
            return self._teller.failed(folder, mail)

    def _is_untold(self, role: Role, found: Found, *, backfill: bool) -> bool:
        with self._store.transaction():
            known = self._teller.known([found])
            return bool(self._teller.untold(role, [found], known, backfill=backfill))
