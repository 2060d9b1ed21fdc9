"""Deciding, inside one transaction, what becomes of a message that was looked at."""

from dataclasses import dataclass
from typing import Literal

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.envelope import Signal, Writer
from fleetprompt_edge.imap.session import Head
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.signals import Mail, MailSignals, unreadable_identity
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.ledger import Folder, Known, State, Unreadable


@dataclass(frozen=True, slots=True)
class Found:
    """A message whose header was read. ``old``: it was there before the connector."""

    identity: bytes
    head: Head
    headers: Headers
    old: bool


class Teller:
    """Writes ledger and queue; every method is called inside the store's transaction."""

    def __init__(self, store: Store, writer: Writer, signals: MailSignals, clock: Clock) -> None:
        self._store = store
        self._writer = writer
        self._signals = signals
        self._clock = clock

    def settle(
        self,
        role: Literal["inbound", "outgoing", "processed"],
        folder: Folder,
        found: Found,
        mail: Mail | None,
        *,
        backfill: bool = False,
    ) -> int:
        """Bind the message to its identity and queue its signal, if it is to be told; how many
        signals. ``mail`` is None where it was known before anything more was read."""
        ledger = self._store.ledger
        known = ledger.find(found.identity)
        told = 0
        if role == "inbound" and mail is not None and _untold(known, backfill=backfill):
            message_id, told = self._tell(known, mail, backfill=backfill)
        elif known is None:
            state: State = "outgoing" if role == "outgoing" and not found.old else "known"
            arrived = int(found.head.arrived.timestamp()) if found.head.arrived else None
            message_id = ledger.add(found.identity, state, arrived)
        else:
            message_id = known.id
            if role == "processed" and known.state == "emitted":
                signal = self._signals.processed(found.identity, folder.name, self._clock.now())
                told = self._queue(signal) if ledger.at(folder.id, found.head.uid) is None else 0
        ledger.place(folder.id, found.head.uid, message_id)
        return told

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

    def _tell(self, known: Known | None, mail: Mail, *, backfill: bool) -> tuple[int, int]:
        ledger = self._store.ledger
        key = self._signals.dedupe_key(mail, ledger.is_taken)
        signal = self._signals.received(mail, key, self._clock.now(), backfill=backfill)
        if known is None:
            arrived = int(mail.head.arrived.timestamp()) if mail.head.arrived else None
            message_id = ledger.add(mail.identity, "emitted", arrived, key)
        else:
            message_id = known.id
            ledger.tell(message_id, "emitted", key)
        return message_id, self._queue(signal)

    def _queue(self, signal: Signal) -> int:
        now = int(self._clock.now().timestamp())
        return int(self._store.queue.put(signal.dedupe_key, signal.type, signal.body, now))


def _untold(known: Known | None, *, backfill: bool) -> bool:
    return known is None or known.state == "outgoing" or (backfill and known.state == "known")
