"""What Bridge does and no other server would: on a stand-in that does it on purpose."""

import json
import random
import resource
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest
from fleetprompt_edge.errors import (
    BridgeDownError,
    BridgeLoginError,
    BridgeRefusedError,
    CertificateError,
)
from fleetprompt_edge.imap.connection import HEADER_LIMIT, BridgeSession
from fleetprompt_edge.ingest import fetching
from fleetprompt_edge.ingest.reader import Watched
from fleetprompt_edge.mail.snippet import part_text
from fleetprompt_edge.mail.structure import Part
from fleetprompt_edge.profile import Imap
from fleetprompt_edge.running.door import GRACE, BridgeNotReadyError, Door
from fleetprompt_edge.running.health import Health
from fleetprompt_edge.running.watch import Watch
from fleetprompt_edge.store import Store

from tests.doubles.fake_bridge import FakeBridge, Message, fake_bridge
from tests.edge.dovecot import PASSWORD, USER, bridge_certificate
from tests.edge.ingesting import NOW, Desk, TurnedClock

INBOX = Watched("INBOX")


class House:
    """The stand-in, a connector's ingest, and the thread's turns between them."""

    def __init__(self, bridge: FakeBridge, pin: str, store: Store) -> None:
        self.bridge = bridge
        self.pin = pin
        self.clock = TurnedClock()
        self.desk = Desk(store, clock=self.clock)
        self.stop = Event()
        self.door = Door(self.knock, self.clock, random.Random(1))
        self.health = Health(store, self.clock)
        self.watch = Watch(
            INBOX,
            self.door,
            self.desk.reader,
            store,
            self.health,
            self.clock,
            self.stop,
            poll_seconds=30,
            told=lambda: None,
            chance=random.Random(1),
        )

    def knock(self, password: str = PASSWORD) -> BridgeSession:
        session = BridgeSession(
            Imap(port=self.bridge.port),
            self.pin,
            self.desk.headers,
            read_seconds=10,
            idle_seconds=0,
        )
        try:
            session.login(USER, password)
        except BaseException:
            session.close()
            raise
        session.wait = lambda stop, seconds: self.clock.wait(stop, seconds)  # type: ignore[method-assign]
        return session

    def begin(self) -> None:
        session = self.knock()
        self.desk.begin(session)
        self.desk.look(session)
        session.close()

    def turns(self, count: int) -> None:
        """So many turns of the thread, with the pauses that it asks for."""
        for _ in range(count):
            self.clock.turn(self.watch.turn())
        self.watch.hang_up()

    def add(self, uid: int, *, minutes: int = 1, **rest: object) -> Message:
        """A mail that arrived so many minutes after the start."""
        header = (
            f"From: a@example.org\r\nTo: {USER}\r\nSubject: s{uid}\r\nMessage-ID: <m{uid}@h>\r\n"
            f"X-Pm-Internal-Id: i{uid}\r\n\r\n"
        )
        mail = Message(header.encode(), b"text %d" % uid, NOW + timedelta(minutes=minutes))
        self.bridge.messages[uid] = replace(mail, **rest)  # type: ignore[arg-type]
        return self.bridge.messages[uid]


@pytest.fixture
def house(tmp_path: Path, store: Store) -> Iterator[House]:
    pin = bridge_certificate(tmp_path)
    with fake_bridge(tmp_path, USER, PASSWORD) as bridge:
        made = House(bridge, pin, store)
        yield made
        made.watch.hang_up()


def test_trap_10_the_newest_first_sync_of_a_whole_mailbox_tells_one_mail(house: House) -> None:
    house.begin()
    for uid in range(1, 501):
        house.add(uid + (uid > 250), minutes=-uid * 100)
    house.add(251)
    house.turns(3)
    assert house.desk.subjects() == ["s251"]


def test_trap_17_answers_in_any_order_with_others_in_between(house: House) -> None:
    house.begin()
    numbers = iter(range(1, 10_000))
    house.bridge.interject = lambda: (
        b"* %d FETCH (FLAGS (\\Seen))\r\n* %d EXISTS\r\n"
        % (
            next(numbers) % 60 + 1,
            60,
        )
    )
    for uid in range(1, 61):
        house.add(uid, text=b"text of %d" % uid)
    house.turns(2)
    told = [one["data"]["message"] for one in house.desk.queued()]
    assert [one["imap_uid"] for one in told] == list(range(1, 61))
    for one in told:
        assert one["subject"] == f"s{one['imap_uid']}"
        assert one["snippet"] == f"text of {one['imap_uid']}"


def test_trap_17_answers_to_two_questions_may_be_mixed(house: House) -> None:
    for uid in (1, 2, 3):
        house.add(uid)
    name = b"X-Pm-Internal-Id: early\r\n"
    early = [b"* 3 FETCH (UID 3 BODY[HEADER.FIELDS (X)]<0> {%d}\r\n%b)\r\n" % (len(name), name)]
    house.bridge.interject = lambda: early.pop() if early else b""
    session = house.knock()
    session.examine("INBOX")
    del house.bridge.messages[3]  # all that comes of it is what comes early
    assert set(session.identifiers([1, 2], then=[3])) == {1, 2}
    assert session.identifiers([3]) == {3: name}
    session.close()


def test_trap_18_what_was_asked_ahead_and_is_refused_counts_when_its_turn_comes(
    house: House,
) -> None:
    for uid in (1, 2, 3):
        house.add(uid, refused=uid == 3)
    session = house.knock()
    session.examine("INBOX")
    assert set(session.identifiers([1], then=[2, 3])) == {1}
    assert set(session.heads([2])) == {2}
    with pytest.raises(BridgeRefusedError):
        session.identifiers([2, 3])
    assert set(session.identifiers([2])) == {2}
    session.close()


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "many"), [("refused", 500), ("vanished", 50)])
def test_trap_18_one_bad_message_holds_up_no_other_and_is_told_once(
    house: House, fault: str, many: int
) -> None:
    house.begin()
    for uid in range(1, many + 1):
        house.add(uid)
    bad = house.bridge.messages[32]
    if fault == "refused":
        bad.refused = True
        house.turns(1)
    else:
        # It is in the list, and gone when it is asked for.
        def vanish() -> bytes:
            bad.vanished = True
            return b""

        house.bridge.interject = vanish
        house.turns(1)
        house.bridge.interject = None
    assert len(house.desk.queued()) == many - 1
    for _ in range(8):
        house.clock.turn(3600 * 3)
        bad.vanished = False
        bad.refused = True
        house.turns(1)
    (failed,) = house.desk.queued("email.inbound.failed")
    assert failed["data"]["message"] == {"folder": "INBOX", "imap_uid": 32, "uidvalidity": 1}
    asked = len(house.bridge.commands)
    for _ in range(5):
        house.clock.turn(3600)
        house.turns(1)
    assert not any(one.startswith(b"FETCH 32 ") for one in house.bridge.commands[asked:])
    assert len(house.desk.queued()) == many - 1


def test_trap_18_a_mail_that_bridge_could_not_load_for_a_while_is_told_when_it_can(
    house: House,
) -> None:
    house.begin()
    mail = house.add(1, refused=True)
    house.turns(2)
    assert house.desk.queued() == []
    mail.refused = False
    house.clock.turn(3600)
    house.turns(1)
    assert house.desk.subjects() == ["s1"]
    assert house.desk.queued("email.inbound.failed") == []


def test_trap_47_a_backfill_tells_a_mail_that_could_not_be_loaded_at_first(house: House) -> None:
    for uid in (1, 2, 3):
        house.add(uid, minutes=-90, refused=uid == 2)
    house.begin()
    with house.desk.store.transaction():
        (folder,) = house.desk.store.ledger.folders()
        house.desk.store.ledger.ask_backfill(folder.id, 0)
    house.turns(2)
    assert house.desk.subjects() == ["s1", "s3"]
    house.bridge.messages[2].refused = False
    house.bridge.uidvalidity += 1
    house.turns(2)
    assert house.desk.subjects() == ["s1", "s3", "s2"]
    with house.desk.store.transaction():
        assert house.desk.store.ledger.backfill(folder.id) is None


def test_trap_47_new_mail_is_told_while_a_long_backfill_goes_on(house: House) -> None:
    for uid in range(1, 401):
        house.add(uid, minutes=-10_000)
    house.begin()
    with house.desk.store.transaction():
        (folder,) = house.desk.store.ledger.folders()
        house.desk.store.ledger.ask_backfill(folder.id, 0)
    began = house.clock.monotonic()
    house.watch.turn()
    assert 0 < len(house.desk.subjects()) < 400
    # It goes on at once, not after the time between two looks.
    assert house.clock.monotonic() - began < 60
    house.add(999)
    house.watch.turn()
    assert house.desk.subjects().index("s999") < 300
    for _ in range(20):
        if len(house.desk.subjects()) < 401:
            house.watch.turn()
    house.turns(1)
    with house.desk.store.transaction():
        assert house.desk.store.ledger.backfill(folder.id) is None
    # 120 at once, then two a second, and the last look waits for more.
    assert house.clock.monotonic() - began == pytest.approx((401 - 120) / 2 + 30, abs=32)


def test_trap_18_a_mail_that_ends_the_connection_holds_up_no_other(house: House) -> None:
    house.begin()
    for uid in range(1, 41):
        house.add(uid, cuts=uid == 17)
    house.turns(40)
    assert len(house.desk.queued()) == 39
    for _ in range(20):
        house.clock.turn(7200)
        house.turns(1)
    assert len(house.desk.queued("email.inbound.failed")) == 1


def test_a_mail_that_this_program_cannot_cope_with_holds_up_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cope(raw: bytes, part: Part) -> str:
        return part_text(raw, part) if raw != b"text 2" else str(1 // 0)

    monkeypatch.setattr(fetching, "part_text", cope)
    house.begin()
    for uid in (1, 2, 3):
        house.add(uid)
    house.turns(1)
    assert house.desk.subjects() == ["s1", "s3"]
    for _ in range(8):
        house.clock.turn(3600 * 3)
        house.turns(1)
    assert house.desk.subjects() == ["s1", "s3", "s2"]
    assert [one["data"].get("incomplete") for one in house.desk.queued()] == [None, None, True]


def test_trap_3_and_26_a_refused_login_is_tried_seldom_and_first_taken_for_a_start(
    house: House,
) -> None:
    house.bridge.loading = True
    with pytest.raises(BridgeNotReadyError) as early:
        house.door.open()
    assert early.value.kind == "network"
    for _ in range(100):
        with pytest.raises(BridgeNotReadyError):
            house.door.open()
    assert house.bridge.logins() == 1
    while house.clock.passed < 1000 + GRACE + 1:
        house.clock.turn(5)
        with pytest.raises((BridgeNotReadyError, BridgeLoginError)):
            house.door.open()
    with pytest.raises(BridgeLoginError) as late:
        house.door.open()
    assert late.value.kind == "auth"
    assert PASSWORD not in str(late.value)
    assert house.bridge.logins() <= 12
    before = house.bridge.logins()
    for _ in range(720):
        house.clock.turn(10)
        with pytest.raises(BridgeLoginError):
            house.door.open()
    # Two hours: a login each quarter of an hour, or a little more.
    assert house.bridge.logins() - before <= 60
    house.bridge.loading = False
    house.clock.turn(901)
    house.door.open().close()
    house.door.open().close()


def idling(house: House) -> BridgeSession:
    session = BridgeSession(
        Imap(port=house.bridge.port),
        house.pin,
        house.desk.headers,
        read_seconds=10,
        idle_seconds=0.5,
    )
    session.login(USER, PASSWORD)
    session.examine("INBOX")
    return session


@pytest.mark.parametrize("refusal", [b"NO idle is switched off", b"BAD unknown command"])
def test_trap_23_idle_that_is_offered_and_refused_becomes_asking(
    house: House, refusal: bytes
) -> None:
    house.bridge.idle = refusal
    session = idling(house)
    offered = session.idles
    assert not session.wait(Event(), 0.1)
    assert (offered, session.idles) == (True, False)
    assert not session.wait(Event(), 0.1)
    assert sum(one.startswith(b"IDLE") for one in house.bridge.commands) == 1
    house.add(1)
    assert session.examine("INBOX").messages == 1
    session.close()


def test_trap_24_mail_that_is_told_of_before_idle_begins_is_noticed(house: House) -> None:
    session = idling(house)
    assert not session.wait(Event(), 0.1)
    house.bridge.idle = b"* 1 EXISTS\r\n"
    assert session.wait(Event(), 0.1)
    assert session.examine("INBOX").messages == 0
    session.close()


def test_trap_27_no_name_and_no_password_reach_a_stranger(house: House) -> None:
    house.pin = ":".join(["00"] * 32)
    for _ in range(3):
        with pytest.raises(CertificateError):
            house.door.open()
    assert house.bridge.commands
    assert not any(USER.encode() in one or b"LOGIN" in one for one in house.bridge.commands)


def test_trap_25_bye_ends_the_connection_and_a_new_one_follows(house: House) -> None:
    house.begin()
    house.bridge.bye = True
    wait = house.watch.turn()
    assert wait > 0
    (problem,) = house.health.problems()
    assert (problem["kind"], problem["place"]) == ("network", "bridge")
    house.bridge.bye = False
    house.add(1)
    house.clock.turn(wait)
    house.turns(1)
    assert house.desk.subjects() == ["s1"]
    assert house.health.problems() == []


def test_a_fault_is_told_in_its_latest_words_and_how_to_mend_it(house: House) -> None:
    house.begin()
    house.bridge.bye = True
    house.watch.turn()
    (lost,) = house.health.problems()
    assert "doctor" in lost["remedy"]
    house.bridge.stop()
    house.watch.turn()
    (closed,) = house.health.problems()
    assert closed["message"] == f"Nothing listens on 127.0.0.1:{house.bridge.port}."
    assert "Start Bridge" in closed["remedy"]
    assert (closed["code"], closed["since"]) == (lost["code"], lost["since"])


def test_trap_44_a_huge_header_a_huge_text_and_a_huge_size_are_read_in_part(house: House) -> None:
    house.begin()
    mail = house.add(1, size=1 << 30, text=b"word " * 2_000_000)
    mail.header = b"Subject: " + b"x" * 20_000_000 + b"\r\n" + mail.header
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session = house.knock()
    (head,) = (session.examine("INBOX"), session.heads([1]))[1].values()
    assert len(head.header) <= HEADER_LIMIT
    house.desk.look(session)
    session.close()
    (told,) = house.desk.queued()
    assert len(json.dumps(told)) < 65_536
    # Most of it is the stand-in's own, which makes its answers in memory.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_trap_44_an_answer_without_end_is_cut_and_the_mail_told_without_its_parts(
    house: House,
) -> None:
    house.begin()
    many = b"(" + b'("image" "png" NIL NIL NIL "base64" 5)' * 40_000 + b' "mixed")'
    house.add(1, structure=many)
    house.add(2)
    for _ in range(60):
        house.clock.turn(3600)
        house.turns(1)
    subjects = house.desk.subjects()
    assert "s2" in subjects
    assert "s1" in subjects or len(house.desk.queued("email.inbound.failed")) == 1


def test_what_is_refused_and_what_is_lost_are_told_apart(house: House) -> None:
    house.add(1, refused=True)
    session = house.knock()
    session.examine("INBOX")
    with pytest.raises(BridgeRefusedError):
        session.heads([1])
    assert session.examine("INBOX").messages == 1
    house.bridge.stop()
    with pytest.raises(BridgeDownError):
        session.heads([1])
    with pytest.raises(BridgeDownError, match="Nothing listens"):
        house.knock()
    session.close()
