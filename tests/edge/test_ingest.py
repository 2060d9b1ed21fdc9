"""What becomes a signal and what does not, on a real IMAP server."""

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from fleetprompt_edge.errors import FolderGoneError
from fleetprompt_edge.ingest.reader import QueueFullError, Watched
from fleetprompt_edge.profile import Mailbox, Profile
from fleetprompt_edge.store import Store

from tests.edge.dovecot import Dovecot, mail
from tests.edge.ingesting import CONNECTOR, NOW, Desk, TurnedClock, profile

OLD = NOW - datetime.timedelta(days=30)
LATER = NOW + datetime.timedelta(minutes=5)
SENT = Watched("Sent", "outgoing")


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def started(desk: Desk, bridge: Dovecot, *watched: Watched, old: int = 3) -> None:
    """A mailbox with some old mail that the connector has begun to watch."""
    bridge.deliver(*(mail(f"old-{number}") for number in range(old)), at=OLD)
    session = bridge.session(desk.headers)
    desk.begin(session, *watched)
    assert desk.look(session, *watched) == 0
    session.close()
    desk.clock.turn(300)


def looked(desk: Desk, bridge: Dovecot, *watched: Watched) -> int:
    session = bridge.session(desk.headers)
    try:
        return desk.look(session, *watched)
    finally:
        session.close()


def test_new_mail_is_told_once(desk: Desk, bridge: Dovecot) -> None:
    started(desk, bridge)
    bridge.deliver(mail(1), at=LATER)
    assert looked(desk, bridge) == 1
    assert looked(desk, bridge) == 0
    (signal,) = desk.queued()
    uid = signal["data"]["message"]["imap_uid"]
    assert signal["dedupe_key"].startswith(f"email_in:northwind:{CONNECTOR}:INBOX:{uid}:")
    assert signal["type"] == "email.inbound.received"
    assert signal["source"] == "edge:proton_mail"
    assert signal["occurred_at"] == "2026-01-06T09:05:00Z"
    assert signal["metadata"]["connector_id"] == CONNECTOR
    assert signal["metadata"]["schema_version"] == 1


@pytest.mark.slow
def test_trap_8_after_a_new_uidvalidity_nothing_known_is_told_again(
    desk: Desk, bridge: Dovecot
) -> None:
    started(desk, bridge)
    bridge.drop((mail(number) for number in range(1000)), at=LATER)
    assert looked(desk, bridge) == 1000
    bridge.renumber()
    assert looked(desk, bridge) == 0
    (notice,) = desk.queued("connector.error")
    assert notice["data"]["code"] == "folder_renumbered"
    bridge.deliver(mail("after"), at=LATER)
    assert looked(desk, bridge) == 1
    assert len(desk.queued()) == 1001
    assert len(desk.queued("connector.error")) == 1


def test_trap_9_mail_that_came_while_uidvalidity_changed_is_told(
    desk: Desk, bridge: Dovecot
) -> None:
    started(desk, bridge)
    bridge.deliver(mail(1), mail(2), at=LATER)
    assert looked(desk, bridge) == 2
    bridge.deliver(mail("meanwhile"), at=LATER)
    bridge.renumber()
    assert looked(desk, bridge) == 1
    assert desk.subjects() == ["Mail 1", "Mail 2", "Mail meanwhile"]


def test_trap_10_old_mail_that_appears_late_with_high_uids_is_not_new(
    desk: Desk, bridge: Dovecot
) -> None:
    started(desk, bridge)
    bridge.drop((mail(f"late-{number}") for number in range(60)), at=OLD)
    bridge.drop([mail("fresh")], at=LATER)
    bridge.drop((mail(f"later-{number}") for number in range(60)), at=OLD)
    assert looked(desk, bridge) == 1
    assert desk.subjects() == ["Mail fresh"]


def test_trap_11_the_same_mail_in_several_watched_folders_is_told_once(
    desk: Desk, bridge: Dovecot
) -> None:
    with bridge.client() as other:
        other.create_folder("Labels/x")
        other.create_folder("All Mail")
    watched = [Watched("INBOX"), Watched("Labels/x"), Watched("All Mail")]
    started(desk, bridge, *watched)
    for folder in ("All Mail", "Labels/x", "INBOX"):
        bridge.deliver(mail(1), folder=folder, at=LATER)
    assert looked(desk, bridge, *watched) == 1
    (signal,) = desk.queued()
    assert signal["data"]["message"]["folder"] == "INBOX"


def test_trap_12_a_mail_that_is_moved_out_and_back_is_not_told_again(
    desk: Desk, bridge: Dovecot
) -> None:
    with bridge.client() as other:
        other.create_folder("Archive")
    started(desk, bridge)
    bridge.deliver(mail(1), at=LATER)
    assert looked(desk, bridge) == 1
    with bridge.client() as other:
        for origin, target in (("INBOX", "Archive"), ("Archive", "INBOX")):
            other.select_folder(origin)
            other.move(other.search(["SUBJECT", "Mail 1"]), target)
    assert looked(desk, bridge) == 0


@pytest.mark.parametrize("order", [("INBOX", "Sent"), ("Sent", "INBOX")])
def test_trap_13_mail_to_oneself_is_told_once_with_its_direction(
    desk: Desk, bridge: Dovecot, order: tuple[str, str]
) -> None:
    watched = {"INBOX": Watched("INBOX"), "Sent": SENT}
    started(desk, bridge, *watched.values())
    bridge.deliver(mail(1, From="Me <ME@proton.me>"), folder=order[0], at=LATER)
    looked(desk, bridge, *(watched[name] for name in order))
    bridge.deliver(mail(1, From="Me <ME@proton.me>"), folder=order[1], at=LATER)
    looked(desk, bridge, *(watched[name] for name in order))
    (signal,) = desk.queued()
    assert signal["data"]["direction"] == "self"
    assert signal["data"]["message"]["folder"] == "INBOX"


def test_mail_of_excluded_senders_is_told_to_nobody_and_nothing_more_is_read_of_it(
    store: Store, bridge: Dovecot
) -> None:
    desk = Desk(store, made=excluding("news@example.org", "@ads.example.org"))
    started(desk, bridge)
    senders = {
        "a": "News <NEWS@example.org>",
        "b": "x@Ads.Example.org",
        "c": "x@sub.ads.example.org",
        "d": "ada@example.org",
        "e": "",
    }
    for name, sender in senders.items():
        bridge.deliver(mail(name, From=sender), at=LATER)
    assert looked(desk, bridge) == 3
    assert desk.subjects() == ["Mail c", "Mail d", "Mail e"]
    bridge.renumber()
    assert looked(desk, bridge) == 0
    # Whoever excludes nobody any more is told of new mail; of old only by a backfill.
    after = Desk(store, clock=desk.clock)
    assert looked(after, bridge) == 0
    with store.transaction():
        (folder,) = store.ledger.folders()
        store.ledger.ask_backfill(folder.id, 0)
    assert looked(after, bridge) == 5


def excluding(*senders: str) -> Profile:
    return replace(profile(), mailbox=replace(Mailbox(), exclude_senders=senders))


def test_what_is_sent_alone_is_nothing_received(desk: Desk, bridge: Dovecot) -> None:
    started(desk, bridge, Watched("INBOX"), SENT)
    bridge.deliver(mail(1, From="me@proton.me"), folder="Sent", at=LATER)
    assert looked(desk, bridge, Watched("INBOX"), SENT) == 0


def test_trap_14_without_a_message_id_and_with_anothers(desk: Desk, bridge: Dovecot) -> None:
    started(desk, bridge)
    plain = {"X_Pm_Internal_Id": ""}
    bridge.deliver(
        mail("none", Message_ID="", **plain),
        mail("none too", Message_ID="", **plain),
        mail("one", Message_ID="<same@example.org>", **plain),
        mail("another", Message_ID="<same@example.org>", **plain),
        mail("third", Message_ID="<same@example.org>"),
        mail("fourth", Message_ID="<same@example.org>"),
        at=LATER,
    )
    assert looked(desk, bridge) == 6
    assert len({one["dedupe_key"] for one in desk.queued()}) == 6
    bridge.renumber()
    assert looked(desk, bridge) == 0


def test_another_mail_at_the_same_place_with_the_same_message_id_has_a_key_of_its_own(
    desk: Desk, bridge: Dovecot
) -> None:
    started(desk, bridge, old=0)
    bridge.deliver(mail(1, Message_ID="<same@example.org>"), at=LATER)
    assert looked(desk, bridge) == 1
    uid = desk.queued()[0]["data"]["message"]["imap_uid"]
    with bridge.client() as other:
        other.select_folder("INBOX")
        other.delete_messages(other.search())
        other.expunge()
    bridge.renumber()
    session = bridge.session(desk.headers)
    coming = session.examine("INBOX").uidnext
    session.close()
    with desk.store.transaction():
        # As if numbering had begun anew, and the next mail got the first one's UID.
        desk.store._connection.execute(
            "UPDATE messages SET dedupe_key = replace(dedupe_key, ?, ?)",
            (f":{uid}:", f":{coming}:"),
        )
    bridge.deliver(mail(2, Message_ID="<same@example.org>"), at=LATER)
    assert looked(desk, bridge) == 1
    first, second = desk.queued()
    assert second["data"]["message"]["imap_uid"] == coming
    assert second["dedupe_key"] != first["dedupe_key"].replace(f":{uid}:", f":{coming}:")


def test_trap_47_the_first_start_tells_nothing_and_a_backfill_only_what_was_asked(
    desk: Desk, bridge: Dovecot
) -> None:
    bridge.deliver(mail("ancient"), at=OLD)
    bridge.deliver(mail("recent"), at=NOW - datetime.timedelta(days=2))
    bridge.deliver(mail("just now"), at=NOW - datetime.timedelta(minutes=10))
    session = bridge.session(desk.headers)
    desk.begin(session)
    assert desk.look(session) == 0
    assert desk.look(session) == 0
    bridge.deliver(mail("new"), at=LATER)
    assert desk.look(session) == 1
    with desk.store.transaction():
        (folder,) = desk.store.ledger.folders()
        desk.store.ledger.ask_backfill(
            folder.id, int((NOW - datetime.timedelta(days=7)).timestamp())
        )
    assert desk.look(session) == 2
    assert desk.look(session) == 0
    assert desk.subjects() == ["Mail new", "Mail recent", "Mail just now"]
    assert [one["data"].get("backfill") for one in desk.queued()] == [None, True, True]
    session.close()


def test_trap_47_a_backfill_keeps_to_the_rate(store: Store, bridge: Dovecot) -> None:
    clock = TurnedClock()
    desk = Desk(store, clock=clock)
    bridge.deliver(*(mail(number) for number in range(150)), at=OLD)
    session = bridge.session(desk.headers)
    desk.begin(session)
    desk.look(session)
    with store.transaction():
        store.ledger.ask_backfill(store.ledger.folders()[0].id, 0)
    began = clock.monotonic()
    assert desk.look(session) == 150
    # 120 a minute: the first 120 at once, the others as they are due.
    assert clock.monotonic() - began == pytest.approx(15, abs=1)
    session.close()


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
def test_trap_36_a_wrong_clock_at_the_first_start_loses_nothing(
    store: Store, bridge: Dovecot, hours: int, known: bool
) -> None:
    bridge.deliver(mail("old"), at=OLD)
    bridge.deliver(mail("older"), at=NOW - datetime.timedelta(minutes=1))
    desk = Desk(store, clock=TurnedClock(NOW + datetime.timedelta(hours=hours)))
    session = bridge.session(desk.headers)
    desk.begin(session, ahead=hours * 3600 if known else None)
    assert desk.look(session) == 0
    bridge.deliver(mail(1), at=LATER)
    if known or hours > 0:
        # A slow clock that nobody corrects takes what arrived later for the future: then an old mail
        # that is moved here is told rather than a new one lost.
        bridge.deliver(mail("moved here"), at=OLD)
    assert desk.look(session) == 1
    assert desk.subjects() == ["Mail 1"]
    session.close()


def test_a_mail_from_the_future_does_not_make_new_mail_old(desk: Desk, bridge: Dovecot) -> None:
    bridge.deliver(mail("future"), at=datetime.datetime(2037, 1, 1, tzinfo=datetime.UTC))
    session = bridge.session(desk.headers)
    desk.begin(session, ahead=None)
    assert desk.look(session) == 0
    bridge.deliver(mail(1), at=LATER)
    assert desk.look(session) == 1
    session.close()


def test_trap_31_when_the_queue_is_full_mail_stays_in_the_mailbox(
    desk: Desk, bridge: Dovecot
) -> None:
    started(desk, bridge)
    bridge.deliver(mail(1), at=LATER)
    assert looked(desk, bridge) == 1
    with desk.store.transaction():
        waiting = desk.store.queue.bytes_waiting()
    full = Desk(desk.store, clock=desk.clock)
    full.reader._most_bytes = waiting
    bridge.deliver(mail(2), at=LATER)
    with pytest.raises(QueueFullError) as caught:
        looked(full, bridge)
    assert caught.value.code == "queue_full"
    with desk.store.transaction():
        batch = desk.store.queue.first(10, 1 << 20)
        desk.store.queue.remove([one.seq for one in batch])
    assert looked(full, bridge) == 1
    assert desk.subjects() == ["Mail 2"]


def test_stopping_in_the_middle_loses_nothing(store: Store, bridge: Dovecot) -> None:
    clock = TurnedClock()
    desk = Desk(store, clock=clock)
    started(desk, bridge)
    bridge.deliver(*(mail(number) for number in range(10)), at=LATER)
    desk.stop.set()
    assert looked(desk, bridge) == 0
    again = Desk(store, clock=clock)
    assert looked(again, bridge) == 10


def test_a_label_that_means_processed_is_told_once_of_mail_that_was_told(
    desk: Desk, bridge: Dovecot
) -> None:
    with bridge.client() as other:
        other.create_folder("Labels/Done")
    watched = [Watched("INBOX"), Watched("Labels/Done", "processed")]
    started(desk, bridge, *watched)
    bridge.deliver(mail(1), at=LATER)
    assert looked(desk, bridge, *watched) == 1
    bridge.deliver(mail(1), mail("never told"), folder="Labels/Done", at=LATER)
    assert looked(desk, bridge, *watched) == 1
    assert looked(desk, bridge, *watched) == 0
    (done,) = desk.queued("email.inbound.processed")
    (told,) = desk.queued()
    assert done["subject_id"] == told["subject_id"]
    assert done["metadata"]["correlation_id"] == told["metadata"]["correlation_id"]


def test_a_folder_that_is_gone_is_told_and_the_others_go_on(desk: Desk, bridge: Dovecot) -> None:
    with bridge.client() as other:
        other.create_folder("Labels/x")
    watched = [Watched("INBOX"), Watched("Labels/x")]
    started(desk, bridge, *watched)
    with bridge.client() as other:
        other.delete_folder("Labels/x")
    bridge.deliver(mail(1), at=LATER)
    session = bridge.session(desk.headers)
    with pytest.raises(FolderGoneError):
        desk.look(session, watched[1])
    assert desk.look(session, watched[0]) == 1
    session.close()


def test_trap_29_after_ingest_all_flags_are_as_before(desk: Desk, bridge: Dovecot) -> None:
    started(desk, bridge)
    bridge.deliver(mail(1), at=LATER)
    bridge.deliver(mail(2), at=LATER, flags=[b"\\Flagged", b"\\Answered"])

    def flags() -> dict[int, set[bytes]]:
        with bridge.client() as other:
            other.select_folder("INBOX", readonly=True)
            found = other.fetch(other.search(), ["FLAGS"])
            return {uid: set(items[b"FLAGS"]) - {b"\\Recent"} for uid, items in found.items()}

    before = flags()
    assert looked(desk, bridge) == 2
    assert flags() == before
    assert [one["data"]["flags"] for one in desk.queued()] == [
        {"seen": False, "answered": False, "flagged": False},
        {"seen": False, "answered": True, "flagged": True},
    ]


CANARY = "canary-of-the-body-77f0"


def test_trap_42_with_the_snippet_off_no_byte_of_a_body_is_in_any_file(
    tmp_path: Path, bridge: Dovecot
) -> None:
    with Store(tmp_path / "state") as store:
        desk = Desk(store, made=profile(send_snippet=False))
        started(desk, bridge)
        html = mail("html", f"<p>{CANARY}</p>", Content_Type="text/html")
        bridge.deliver(mail(1, CANARY), html, at=LATER)
        assert looked(desk, bridge) == 2
        for path in (tmp_path / "state").iterdir():
            assert CANARY.encode() not in path.read_bytes(), path
        assert [one["data"]["message"]["snippet"] for one in desk.queued()] == [None, None]


def test_a_body_is_sent_only_after_both_consents(store: Store, bridge: Dovecot) -> None:
    made = profile(send_body=True, send_body_to_organization=CONNECTOR, body_max_characters=40)
    desk = Desk(store, made=made)
    started(desk, bridge)
    bridge.deliver(mail(1, "First line\r\nsecond line " + "x" * 100), at=LATER)
    assert looked(desk, bridge) == 1
    consenting = Desk(store, clock=desk.clock, made=made, with_body=True)
    bridge.deliver(mail(2, "First line\r\nsecond line " + "x" * 100), at=LATER)
    assert looked(consenting, bridge) == 1
    without, with_body = desk.queued()
    assert "body_text" not in without["data"]
    assert with_body["data"]["body_text"].startswith("First line\nsecond line xxx")
    assert len(with_body["data"]["body_text"]) == 40
