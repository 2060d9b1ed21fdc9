"""Deciding, inside one transaction, what becomes of a message that was looked at."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.envelope import Signal, Writer
from fleetprompt_edge.mail.signals import Mail, MailSignals, unreadable_identity
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.ledger import Folder, Known, Unreadable

Role = Literal["inbound", "outgoing", "processed"]
"""``outgoing``: sent mail and drafts, which nobody received. ``processed``: a label that means so."""


class Found(NamedTuple):
    """A message whose identity is known. ``arrived``: epoch s, None if unknown; ``old``: it was there
    before the connector."""

    uid: int
    identity: bytes
    arrived: int | None
    old: bool


class Teller:
    """Writes ledger and queue; every method is called inside the store's transaction."""

    def __init__(self, store: Store, writer: Writer, signals: MailSignals, clock: Clock) -> None:
        self._store = store
        self._writer = writer
        self._signals = signals
        self._clock = clock

    def known(self, found: Sequence[Found]) -> dict[bytes, Known]:
        """Those of the mails that are in the ledger, by identity."""
        return self._store.ledger.find_all([one.identity for one in found])

    @staticmethod
    def untold(
        role: Role,
        found: Sequence[Found],
        known: Mapping[bytes, Known],
        *,
        backfill: bool = False,
    ) -> set[int]:
        """The UIDs of those messages whose mail is to be told."""
        if role != "inbound":
            return set()
        return {
            one.uid
            for one in found
            if not one.old and _is_untold(known.get(one.identity), backfill=backfill)
        }

    def settle(
        self,
        role: Role,
        folder: Folder,
        found: Sequence[Found],
        mails: Mapping[int, Mail],
        known: Mapping[bytes, Known],
        *,
        backfill: bool = False,
    ) -> int:
        """Bind messages to their identities and queue the signals of those that are to be told; how
        many signals. ``mails``, by UID, are those of which more was read since they seemed new. ``known``
        may be of an earlier transaction: a mail never leaves the ledger, and keeps its id in it."""
        known = self._bind(role, [one for one in found if one.uid not in mails], known)
        told = 0
        for one in found:
            mail = mails.get(one.uid)
            if mail is not None:
                known[one.identity], signals = self._told(role, one, mail, backfill=backfill)
                told += signals
            elif role == "processed":
                told += self._processed(folder, one)
        ledger = self._store.ledger
        ledger.place_all(folder.id, ((one.uid, known[one.identity].id) for one in found))
        return told

    def _bind(
        self, role: Role, found: Sequence[Found], known: Mapping[bytes, Known]
    ) -> dict[bytes, Known]:
        """The mails of the ledger that these are; what is not in it yet comes into it untold."""
        strange = [one for one in found if one.identity not in known]
        if not strange:
            return dict(known)
        ledger = self._store.ledger
        ledger.add_all(
            (
                one.identity,
                "outgoing" if role == "outgoing" and not one.old else "known",
                one.arrived,
            )
            for one in strange
        )
        return {**known, **self.known(strange)}

    def _told(self, role: Role, found: Found, mail: Mail, *, backfill: bool) -> tuple[Known, int]:
        known = self._store.ledger.find(found.identity)
        if role == "inbound" and _is_untold(known, backfill=backfill):
            return self._tell(known, mail, backfill=backfill)
        # Another folder's thread was quicker.
        return self._bind(role, [found], {})[found.identity], 0

    def _processed(self, folder: Folder, found: Found) -> int:
        ledger = self._store.ledger
        known = ledger.find(found.identity)
        if known is None or known.state != "emitted" or ledger.at(folder.id, found.uid) is not None:
            return 0
        return self._queue(self._signals.processed(found.identity, folder.name, self._clock.now()))

    def failed(self, folder: Folder, mail: Unreadable) -> int:
        """Tell, once, that a mail cannot be read."""
        identity = unreadable_identity(folder.name, folder.uidvalidity, mail.uid)
        if self._store.ledger.find(identity) is not None:
            return 0
        signal = self._signals.unreadable(
            folder.name, folder.uidvalidity, mail.uid, self._clock.now()
        )
        message_id = self._store.ledger.add(
            identity, "failed", mail.internal_date, signal.dedupe_key
        )
        self._store.ledger.place(folder.id, mail.uid, message_id)
        return self._queue(signal)

    def folder_was_reset(self, folder: Folder, uidvalidity: int) -> None:
        """Tell that Bridge numbered a folder anew, which costs nothing and explains a lot."""
        self._queue(
            self._writer.write(
                "connector.error",
                self._clock.now(),
                {
                    "kind": "unknown",
                    "code": "folder_renumbered",
                    "message": "Bridge numbered a folder anew; mails are recognised by identity.",
                    "folder": folder.name,
                    "uidvalidity": {"before": folder.uidvalidity, "now": uidvalidity},
                },
                dedupe_key=self._writer.key("folder_renumbered", folder.id, uidvalidity),
                correlation_id=f"connector:{self._writer.profile.connector_id}",
            )
        )

    def _tell(self, known: Known | None, mail: Mail, *, backfill: bool) -> tuple[Known, int]:
        ledger = self._store.ledger
        key = self._signals.dedupe_key(mail, ledger.is_taken)
        signal = self._signals.received(mail, key, self._clock.now(), backfill=backfill)
        if known is None:
            arrived = int(mail.head.arrived.timestamp()) if mail.head.arrived else None
            message_id = ledger.add(mail.identity, "emitted", arrived, key)
        else:
            message_id = known.id
            ledger.tell(message_id, "emitted", key)
        return Known(message_id, "emitted", key), self._queue(signal)

    def _queue(self, signal: Signal) -> int:
        now = int(self._clock.now().timestamp())
        return int(self._store.queue.put(signal.dedupe_key, signal.type, signal.body, now))


def _is_untold(known: Known | None, *, backfill: bool) -> bool:
    return known is None or known.state == "outgoing" or (backfill and known.state == "known")
