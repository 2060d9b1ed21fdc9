"""A post office that does what Bridge does: for half an hour it swallows what looks like what it sent.

Its faults come before the mail is taken, after it, and in place of the answer.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.parser import BytesParser
from email.policy import default
from threading import Event
from typing import Any
from uuid import UUID, uuid4

from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import BridgeDownError
from fleetprompt_edge.imap.session import Examined, Head, Listed, Section, Seen
from fleetprompt_edge.profile import Profile, Sending
from fleetprompt_edge.sending.sender import Sender
from fleetprompt_edge.sending.sent import SentMail
from fleetprompt_edge.sending.smtp import Delivery
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Leased

from tests.edge.ingesting import TENANT, TurnedClock, profile

OWN = "me@proton.me"
ORGANIZATION = str(UUID(int=7))
TAKEN = Delivery("taken")
_REMEMBERED = 1800


def sending_profile(**options: Any) -> Profile:
    """A profile that may send as its account."""
    allowed = replace(Sending(), allowed_from_addresses=(OWN,), **options)
    return replace(profile(), sending=allowed)


@dataclass
class PostOffice:
    """Sent mail, and how Bridge comes to send it. ``wrong_by``: how far ahead ``clock`` is.

    ``script``: what happens at the next tries, in order: ``ok``, ``lost`` (sent, and the answer is lost),
    ``gone`` (not sent, no answer), or a ``Delivery``.
    """

    clock: TurnedClock
    late: float = 0.0
    wrong_by: timedelta = timedelta()
    unreadable: bool = False
    script: list[str | Delivery] = field(default_factory=list)
    step: Callable[[], None] = lambda: None
    sent: list[tuple[str, float, tuple[str, ...]]] = field(default_factory=list)
    tries: int = 0
    remembered: dict[bytes, float] = field(default_factory=dict)

    def hand_over(self, sender: str, recipients: Sequence[str], content: bytes) -> Delivery:
        self.step()
        self.tries += 1
        what = self.script.pop(0) if self.script else "ok"
        if isinstance(what, Delivery):
            return what
        if what == "gone":
            return Delivery("doubtful", "network", "lost")
        mail = BytesParser(policy=default).parsebytes(content)
        now = self.clock.passed
        parts = [str(one.get_content()) for one in mail.walk() if not one.is_multipart()]
        heads = [str(mail[name]) for name in ("Subject", "From", "To", "Cc", "In-Reply-To")]
        like = hashlib.sha256(json.dumps([heads, parts, sorted(recipients)]).encode()).digest()
        if now - self.remembered.get(like, -_REMEMBERED) >= _REMEMBERED:
            self.remembered[like] = now
            self.sent.append((str(mail["Message-ID"]), now, tuple(recipients)))
        self.step()
        return Delivery("doubtful", "network", "lost") if what == "lost" else TAKEN

    def session(self) -> "SentFolder":
        if self.unreadable:
            raise BridgeDownError("down")
        return SentFolder(self)


class SentFolder:
    """A session that shows the sent mail."""

    def __init__(self, office: PostOffice) -> None:
        self._office = office

    def folders(self) -> list[Listed]:
        return [Listed("Gesendet", frozenset({"\\sent"}), True)]

    def examine(self, folder: str) -> Examined:
        if self._office.unreadable:
            raise BridgeDownError("down")
        return Examined(1, 1, 1)

    def scan(self, first: int, last: int | None) -> Iterator[Seen]:
        now = int((self._office.clock.now() - self._office.wrong_by).timestamp())
        for uid, (_, at, _) in enumerate(self._office.sent, start=1):
            if self._office.clock.passed - at >= self._office.late:
                yield Seen(uid, now, 10)

    def identifiers(self, uids: Sequence[int], then: Sequence[int] = ()) -> dict[int, bytes]:
        self._office.step()
        return {uid: f"Message-ID: {self._office.sent[uid - 1][0]}\r\n".encode() for uid in uids}

    def heads(self, uids: Sequence[int]) -> dict[int, Head]:
        return {}

    def structures(self, uids: Sequence[int]) -> dict[int, Any]:
        return {}

    def part(self, wanted: Section) -> bytes:
        return b""

    def changed(self) -> bool:
        return False

    def wait(self, stop: Event, seconds: float) -> bool:
        return False

    def close(self) -> None:
        return None


def asked(number: int = 1, attempt: int = 1, **params: Any) -> Leased:
    """A directive to send a mail."""
    given = {"to": ["Ann@Example.org"], "subject": "Hello", "text_body": f"Text {number}", **params}
    return Leased(
        str(UUID(int=number)), "email.send", given, attempt, str(uuid4()), f"order:{number}"
    )


class Office:
    """A sender on a store, with everything around it."""

    def __init__(self, store: Store, *, clock: TurnedClock | None = None, **options: Any) -> None:
        self.store = store
        self.clock = clock or TurnedClock()
        self.stop = Event()
        self.bridge = PostOffice(self.clock)
        self.profile = sending_profile(**options)
        self.sender = self.restarted(store)

    def restarted(self, store: Store) -> Sender:
        """A sender as after a restart."""
        return Sender(
            store,
            Writer(self.profile, TENANT),
            ORGANIZATION,
            self.bridge,
            SentMail(self.bridge.session),
            self.clock,
            self.stop,
        )

    def work(self, leased: Leased, *, held: bool = True) -> dict[str, Any] | None:
        """One attempt; its report."""
        self.sender.work(leased, lambda: held)
        with self.store.transaction():
            for one in self.store.sends.reports():
                if (one.directive_id, one.attempt) == (leased.id, leased.attempt):
                    return dict(json.loads(one.body))
        return None

    def told(self) -> list[str]:
        """The types of the signals that wait."""
        with self.store.transaction():
            return [one.type.rpartition(".")[2] for one in self.store.queue.first(1000, 1 << 30)]
