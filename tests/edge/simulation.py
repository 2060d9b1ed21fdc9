"""A mailbox, a platform and a connector in one process, driven by a seed, that die at any step.

Time is virtual. Between every two steps (a call to the mailbox, a request, a transaction's beginning and
its commit) the connector may crash: everything that is not in its database is gone then.
"""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import httpx
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import BridgeDownError, BridgeRefusedError, EdgeError, FolderGoneError
from fleetprompt_edge.imap.session import Examined, Head, Listed, Section, Seen
from fleetprompt_edge.ingest.baseline import begin
from fleetprompt_edge.ingest.pace import Pace
from fleetprompt_edge.ingest.reader import QueueFullError, Watched
from fleetprompt_edge.ingest.setup import reader_for
from fleetprompt_edge.running.health import Health
from fleetprompt_edge.running.post import Heart
from fleetprompt_edge.store import Store
from fleetprompt_edge.upload.platform import Platform
from fleetprompt_edge.upload.uploader import Uploader

from tests.edge.ingesting import NOW, TENANT, TurnedClock, profile

CANARY = "canary-body-of-a-mail"
KEY = "fp_conn_canary-key"
WATCHED = (Watched("INBOX"), Watched("Labels/x"), Watched("Sent", "outgoing"))


def memory_folder() -> str | None:
    """Where a history's files may lie: in memory, where there is any, since not the disk is tried."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() else None


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Mail:
    """A mail of the world. ``refusals``: how often Bridge will not hand it out; -1: never does."""

    number: int
    arrived: datetime
    message_id: str
    old: bool
    refusals: int = 0
    kills: int = 0
    troubled: bool = False

    @property
    def header(self) -> bytes:
        return (
            f"From: a{self.number}@example.org\r\nTo: me@proton.me\r\nSubject: s{self.number}\r\n"
            f"Message-ID: {self.message_id}\r\nX-Pm-Internal-Id: internal-{self.number}\r\n\r\n"
        ).encode()


@dataclass
class Box:
    """A folder of the world; ``was`` remembers which mail was ever shown where."""

    uidvalidity: int = 1
    uidnext: int = 1
    mails: dict[int, Mail] = field(default_factory=dict)
    was: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, mail: Mail) -> None:
        self.was[self.uidvalidity, self.uidnext] = mail.number
        self.mails[self.uidnext] = mail
        self.uidnext += 1


class World:
    """Everything outside the connector."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.true_time = NOW
        self.clock = TurnedClock()
        self.boxes = {one.name: Box() for one in WATCHED}
        self.mails: list[Mail] = []
        self.signals: dict[str, dict[str, Any]] = {}
        self.crash_rate = 0.0
        self.fault_rate = 0.0
        self.crashes = 0
        self.faults = 0

    def step(self) -> None:
        """Between two steps."""
        if self.chance.random() < self.crash_rate:
            self.crashes += 1
            raise Crash

    def fault(self) -> bool:
        """Whether something goes wrong now."""
        found = self.chance.random() < self.fault_rate
        self.faults += found
        return found

    def pass_time(self, seconds: float) -> None:
        """For everybody."""
        self.true_time += timedelta(seconds=seconds)
        self.clock.turn(seconds)

    def deliver(self, folder: str, *, old: bool) -> Mail:
        """A mail arrives; some have the Message-ID of another one."""
        number = len(self.mails)
        copied = self.mails and self.chance.random() < 0.1
        message_id = self.chance.choice(self.mails).message_id if copied else f"<m{number}@h>"
        arrived = self.true_time - timedelta(days=30 if old else 0)
        mail = Mail(number, arrived, message_id, old)
        if not old:
            mail.refusals = self.chance.choice([0] * 12 + [1, 2, -1])
            mail.kills = self.chance.choice([0] * 12 + [1, 4])
            mail.troubled = mail.refusals != 0 or mail.kills != 0
        self.mails.append(mail)
        self.boxes[folder].add(mail)
        return mail

    def renumber(self, folder: str) -> None:
        """UIDVALIDITY changes, and with it all UIDs, newest mail first."""
        box = self.boxes[folder]
        mails = list(box.mails.values())
        self.chance.shuffle(mails)
        box.uidvalidity += 1
        box.uidnext, box.mails = self.chance.choice([1, 1000]), {}
        for mail in mails:
            box.add(mail)

    def move(self, origin: str, target: str) -> None:
        """A mail gets another folder, and another UID there."""
        box = self.boxes[origin]
        if box.mails:
            uid = self.chance.choice(sorted(box.mails))
            self.boxes[target].add(box.mails.pop(uid))

    def label(self, origin: str, target: str) -> None:
        """A mail is shown in another folder too."""
        box = self.boxes[origin]
        if box.mails:
            self.boxes[target].add(self.chance.choice(list(box.mails.values())))

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The platform: it commits, then answers, and either may fail."""
        self.step()
        if self.fault():
            return self.chance.choice(
                [
                    httpx.Response(200, text="<html>log in"),
                    httpx.Response(503, headers={"retry-after": "3"}),
                    httpx.Response(500),
                    httpx.Response(302, headers={"location": "https://elsewhere.example"}),
                ]
            )
        items = []
        for line in request.content.splitlines():
            signal = json.loads(line)
            key = signal["dedupe_key"]
            status = "duplicate" if key in self.signals else "created"
            if status == "created":
                self.signals[key] = signal
            items.append({"id": str(uuid4()), "status": status})
        self.step()
        if self.fault():
            raise httpx.ReadError("lost on its way")
        return httpx.Response(200, json={"items": items})


class WorldSession:
    """A ``Session`` on the world's mailbox."""

    idles = False

    def __init__(self, world: World) -> None:
        self._world = world
        self._box = Box()
        self._alive = True

    def _call(self) -> None:
        self._world.step()
        if not self._alive or self._world.fault():
            self._alive = False
            raise BridgeDownError("The connection to Bridge was lost.")

    def folders(self) -> list[Listed]:
        self._call()
        return [Listed(name, frozenset(), selectable=True) for name in self._world.boxes]

    def examine(self, folder: str) -> Examined:
        self._call()
        if folder not in self._world.boxes:
            raise FolderGoneError(folder)
        self._box = self._world.boxes[folder]
        return Examined(self._box.uidvalidity, self._box.uidnext, len(self._box.mails))

    def scan(self, first: int, last: int | None) -> Iterator[Seen]:
        self._call()
        found = [
            Seen(uid, int(mail.arrived.timestamp()), 100)
            for uid, mail in self._box.mails.items()
            if first <= uid <= (last or uid)
        ]
        self._world.chance.shuffle(found)
        return iter(found)

    def identifiers(self, uids: Sequence[int], then: Sequence[int] = ()) -> dict[int, bytes]:
        return {mail_uid: mail.header for mail_uid, mail in self._contents(uids)}

    def heads(self, uids: Sequence[int]) -> dict[int, Head]:
        return {
            uid: Head(uid, mail.arrived, 100, frozenset(), mail.header)
            for uid, mail in self._contents(uids)
        }

    def _contents(self, uids: Sequence[int]) -> Iterator[tuple[int, Mail]]:
        """Messages whose content is read, which Bridge may refuse or break off at."""
        self._call()
        for uid in self._world.chance.sample(list(uids), len(uids)):
            mail = self._box.mails.get(uid)
            if mail is None:
                continue
            if mail.kills:
                mail.kills -= 1
                self._alive = False
                raise BridgeDownError("The connection to Bridge was lost.")
            if mail.refusals:
                mail.refusals -= mail.refusals > 0
                raise BridgeRefusedError("Bridge refused to hand out mail.")
            yield uid, mail

    def structures(self, uids: Sequence[int]) -> dict[int, Any]:
        self._call()
        plain = [b"text", b"plain", [b"charset", b"utf-8"], None, None, b"7bit", b"99", b"1"]
        return {uid: plain for uid in uids if uid in self._box.mails}

    def part(self, wanted: Section) -> bytes:
        self._call()
        return CANARY.encode() if wanted.uid in self._box.mails else b""

    def changed(self) -> bool:
        self._call()
        return False

    def wait(self, stop: Event, seconds: float) -> bool:
        self._world.pass_time(seconds)
        return False

    def close(self) -> None:
        self._alive = False


class CrashingStore(Store):
    """A store whose process may die around every transaction."""

    world: World

    @contextmanager
    def transaction(self) -> Iterator[None]:
        if self._depth:
            with super().transaction():
                yield
            return
        self.world.step()
        with super().transaction():
            yield
            self.world.step()
        self.world.step()


class Connector:
    """One life of the connector, from its start to its crash."""

    def __init__(self, world: World, folder: Path, *, snippet: bool) -> None:
        self.world = world
        made = profile(send_snippet=snippet)
        made = replace(made, limits=replace(made.limits, max_messages_per_minute=10_000))
        self.store = CrashingStore(folder)
        self.store.world = world
        writer = Writer(made, TENANT)
        self.platform = Platform(
            "https://fleetprompt.example",
            KEY,
            world.clock,
            transport=httpx.MockTransport(world.answer),
        )
        self.health = Health(self.store, world.clock)
        self.health.writer = writer
        self.reader = reader_for(
            self.store,
            writer,
            world.clock,
            Pace(world.clock, 10_000),
            Event(),
            with_body=False,
        )
        self.uploader = Uploader(self.store, self.platform, world.clock)
        self.heart = Heart(self.store, self.health, writer, world.clock, uuid4().hex)

    def begin(self) -> None:
        """Open the mailbox."""
        skew = (self.world.clock.now() - self.world.true_time).total_seconds()
        begin(WorldSession(self.world), self.store, self.world.clock, WATCHED, ahead=skew)

    def look(self) -> None:
        """Look at every folder over one connection, as far as it holds."""
        session = WorldSession(self.world)
        try:
            for one in WATCHED:
                self.reader.look(session, one)
        except QueueFullError:
            pass
        except EdgeError as error:
            self.health.bad("bridge", error)
        else:
            self.health.good("bridge")

    def send(self) -> None:
        """Send until it fails or nothing waits."""
        try:
            while self.uploader.send_some():
                pass
        except EdgeError as error:
            self.health.bad("platform", error)
        else:
            self.health.good("platform")

    def is_done(self) -> bool:
        """Whether everything that is there was looked at, and nothing waits."""
        with self.store.transaction():
            ledger = self.store.ledger
            return self.store.queue.backlog().signals == 0 and all(
                one.seen_up_to + 1 >= self.world.boxes[one.name].uidnext
                and one.uidvalidity == self.world.boxes[one.name].uidvalidity
                and not ledger.unreadable(one.id)
                for one in ledger.folders()
            )

    def end(self) -> None:
        """Close what the operating system would close."""
        self.platform.close()
        self.store._connection.close()


def history(seed: int, folder: Path, rounds: int = 40) -> World:
    """Let a connector live through a random history, then let everything be well; checks the promises."""
    world = World(seed)
    chance = world.chance
    snippet = chance.random() < 0.5
    for _ in range(chance.randrange(5)):
        world.deliver("INBOX", old=True)
    life = _life(world, folder, snippet=snippet)
    life.begin()
    world.crash_rate = chance.choice([0.0, 0.02, 0.1])
    world.fault_rate = chance.choice([0.0, 0.02, 0.1])
    for _ in range(rounds):
        _event(world)
        try:
            chance.choice([life.look, life.look, life.send, life.heart.beat])()
        except Crash:
            life.end()
            life = _life(world, folder, snippet=snippet)
        world.pass_time(chance.choice([0, 1, 30, 600]))
    world.crash_rate = world.fault_rate = 0.0
    # Mails that break the connection and mails that are asked for again and again take their time.
    for _ in range(500):
        life.look()
        life.send()
        if life.is_done():
            break
        world.pass_time(1200)
    assert life.is_done(), "never done"
    _check(world, life, folder, snippet=snippet)
    life.end()
    return world


def _life(world: World, folder: Path, *, snippet: bool) -> Connector:
    """The next start; nobody crashes while still starting, only a moment later."""
    rate, world.crash_rate = world.crash_rate, 0.0
    try:
        return Connector(world, folder, snippet=snippet)
    finally:
        world.crash_rate = rate


def _event(world: World) -> None:
    chance = world.chance
    what = chance.random()
    if what < 0.45:
        for _ in range(chance.choice([1, 1, 2, 7])):
            world.deliver("INBOX", old=False)
    elif what < 0.5:
        world.deliver("Labels/x", old=False)
    elif what < 0.55:
        world.deliver("Sent", old=False)
    elif what < 0.6:
        world.deliver("INBOX", old=True)
    elif what < 0.68:
        world.renumber(chance.choice(list(world.boxes)))
    elif what < 0.76:
        world.move(*chance.sample(["INBOX", "Labels/x"], 2))
    elif what < 0.84:
        world.label(
            *chance.choice([("INBOX", "Labels/x"), ("Labels/x", "INBOX"), ("Sent", "INBOX")])
        )
    elif what < 0.9:
        world.clock.at += timedelta(seconds=chance.choice([-3600, 3600, 86400]))


def _check(world: World, life: Connector, folder: Path, *, snippet: bool) -> None:
    received = [one for one in world.signals.values() if one["type"] == "email.inbound.received"]
    subjects = [one["data"]["message"]["subject"] for one in received]
    shown = {
        mail.number
        for name in ("INBOX", "Labels/x")
        for mail in world.boxes[name].mails.values()
        if not mail.old and mail.refusals == 0
    }
    # A mail that was asked for again and again, and never came, is told as such instead.
    failed = {
        world.boxes[at["folder"]].was[at["uidvalidity"], at["imap_uid"]]
        for at in (
            one["data"]["message"]
            for one in world.signals.values()
            if one["type"] == "email.inbound.failed"
        )
    }
    calm = {number for number in failed if not world.mails[number].troubled}
    assert not calm or world.faults, f"told as failed without a reason: {calm}"
    lost = shown - {int(one[1:]) for one in subjects} - failed
    assert not lost, f"lost: {lost}"
    assert len(subjects) == len(set(subjects)), "told twice"
    old = {mail.number for mail in world.mails if mail.old}
    assert not old & {int(one[1:]) for one in subjects}, "old mail told"
    for one in received:
        mail = world.mails[int(one["data"]["message"]["subject"][1:])]
        moment = datetime.fromisoformat(one["occurred_at"].replace("Z", "+00:00"))
        assert moment == mail.arrived.astimezone(UTC)
        assert one["data"]["message"]["message_id"] == mail.message_id
    with life.store.transaction():
        assert life.store.queue.backlog().signals == 0
        assert life.store.queue.dead_letters() == []
    everything = json.dumps(list(world.signals.values())).encode()
    for path in folder.iterdir():
        everything += path.read_bytes()
    assert KEY.encode() not in everything
    assert snippet or CANARY.encode() not in everything
