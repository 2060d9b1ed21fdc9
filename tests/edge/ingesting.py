"""A reader with everything around it, and what it queued."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.imap.session import Session
from fleetprompt_edge.ingest.baseline import begin
from fleetprompt_edge.ingest.pace import Pace
from fleetprompt_edge.ingest.reader import Reader, Watched
from fleetprompt_edge.ingest.setup import reader_for
from fleetprompt_edge.mail.signals import wanted_headers
from fleetprompt_edge.profile import (
    Bridge,
    FleetPrompt,
    Health,
    Imap,
    Limits,
    Mailbox,
    Privacy,
    Profile,
    Secrets,
    Sending,
    Smtp,
)
from fleetprompt_edge.store import Store

CONNECTOR = "6ff1c4f6-8c4f-4f0e-9a7e-0d7c3f6f9a01"
TENANT = "northwind"
NOW = datetime(2026, 1, 6, 9, 0, tzinfo=UTC)


def profile(**privacy: Any) -> Profile:
    """A profile as it is by default, with some privacy options set."""
    return Profile(
        connector_id=CONNECTOR,
        fleetprompt=FleetPrompt(base_url="https://fleetprompt.example"),
        bridge=Bridge(username="me@proton.me", imap=Imap(), smtp=Smtp()),
        mailbox=Mailbox(),
        privacy=replace(Privacy(), **privacy),
        sending=Sending(),
        limits=Limits(),
        health=Health(),
        secrets=Secrets(),
    )


class TurnedClock:
    """A clock that moves only when somebody waits or turns it."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at
        self.passed = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.passed

    def wait(self, stop: Event, seconds: float) -> bool:
        self.turn(seconds)
        return stop.is_set()

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self.at += timedelta(seconds=seconds)
        self.passed += seconds


class Desk:
    """A connector's ingest on one store."""

    def __init__(
        self,
        store: Store,
        *,
        clock: TurnedClock | None = None,
        made: Profile | None = None,
        with_body: bool = False,
    ) -> None:
        self.store = store
        self.clock = clock or TurnedClock()
        self.profile = made or profile()
        self.stop = Event()
        self.headers = wanted_headers(self.profile.privacy)
        self.reader: Reader = reader_for(
            store,
            Writer(self.profile, TENANT),
            self.clock,
            Pace(self.clock, self.profile.limits.max_messages_per_minute),
            self.stop,
            with_body=with_body,
        )

    def begin(self, session: Session, *watched: Watched, ahead: float | None = 0) -> None:
        """Start to watch folders, by default with a clock that FleetPrompt agrees to."""
        begin(session, self.store, self.clock, watched or [Watched("INBOX")], ahead=ahead)

    def look(self, session: Session, *watched: Watched) -> int:
        """Look at folders once; how many signals."""
        return sum(self.reader.look(session, one) for one in watched or [Watched("INBOX")])

    def queued(self, kind: str = "email.inbound.received") -> list[dict[str, Any]]:
        """The signals of a type that wait, as JSON."""
        with self.store.transaction():
            waiting = self.store.queue.first(100_000, 1 << 40)
        return [json.loads(one.body) for one in waiting if one.type == kind]

    def subjects(self) -> list[str]:
        """The subjects of the mails that were told."""
        return [one["data"]["message"]["subject"] for one in self.queued()]
