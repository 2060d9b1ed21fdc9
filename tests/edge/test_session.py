"""The session on a real IMAP server: what it reads, what it refuses, what it leaves alone."""

import logging
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from fleetprompt_edge.errors import (
    BridgeDownError,
    BridgeLoginError,
    BridgeTlsError,
    CertificateError,
    FolderGoneError,
)
from fleetprompt_edge.imap.connection import BridgeSession
from fleetprompt_edge.imap.session import Section
from fleetprompt_edge.profile import Imap

from tests.edge.dovecot import PASSWORD, USER, Dovecot, dovecot, mail


def test_the_header_the_structure_and_a_part_are_read(bridge: Dovecot) -> None:
    at = datetime(2026, 1, 6, 8, 0, 5, tzinfo=UTC)
    bridge.deliver(mail(1, "Hello Wörld"), at=at, flags=[b"\\Flagged"])
    session = bridge.session()
    examined = session.examine("INBOX")
    assert examined.messages == 1
    (seen,) = session.scan(1, None)
    assert (seen.uid, seen.arrived) == (examined.uidnext - 1, int(at.timestamp()))
    (head,) = session.heads([seen.uid]).values()
    assert head.arrived == at
    assert head.size == seen.size
    assert head.flags >= {"\\flagged"}
    assert b"X-Pm-Internal-Id: internal-1" in head.header
    assert b"From:" not in head.header
    (structure,) = session.structures([seen.uid]).values()
    assert structure[:2] == [b"text", b"plain"]
    assert session.part(Section(seen.uid, "1", 7)) == b"Hello W"
    assert session.part(Section(seen.uid + 1, "1", 7)) == b""
    session.close()


def test_trap_29_no_flag_changes(bridge: Dovecot) -> None:
    bridge.deliver(mail(1), mail(2))
    with bridge.client() as other:
        other.select_folder("INBOX", readonly=True)
        before = {
            uid: items[b"FLAGS"] for uid, items in other.fetch(other.search(), ["FLAGS"]).items()
        }
    session = bridge.session()
    session.examine("INBOX")
    uids = [one.uid for one in session.scan(1, None)]
    session.heads(uids)
    session.structures(uids)
    for uid in uids:
        session.part(Section(uid, "1", 100))
    session.close()
    with bridge.client() as other:
        other.select_folder("INBOX", readonly=True)
        after = {
            uid: items[b"FLAGS"] for uid, items in other.fetch(other.search(), ["FLAGS"]).items()
        }
    assert before == after
    assert not any(b"\\Seen" in flags for flags in after.values())


def test_trap_20_a_range_beyond_the_last_message_is_empty(bridge: Dovecot) -> None:
    bridge.deliver(mail(1))
    session = bridge.session()
    next_uid = session.examine("INBOX").uidnext
    assert list(session.scan(next_uid, None)) == []
    session.close()


@pytest.mark.slow
def test_trap_19_ranges_and_long_lists_of_uids(bridge: Dovecot) -> None:
    bridge.deliver(mail(1), mail(2))
    session = bridge.session()
    first = next(iter(session.scan(1, None))).uid if session.examine("INBOX").messages else 0
    every = list(range(first, first + 40_000, 2))
    assert len(session.heads(list(range(first, first + 20_000)))) == 2
    # A list that cannot be shortened is the reader's to split; it never asks for more than this.
    assert len(session.heads(every[:100])) == 1
    session.close()


def test_trap_17_what_others_change_in_between_is_not_taken_for_an_answer(bridge: Dovecot) -> None:
    bridge.deliver(*(mail(number) for number in range(1, 6)))
    session = bridge.session()
    session.examine("INBOX")
    uids = sorted(one.uid for one in session.scan(1, None))
    with bridge.client() as other:
        other.select_folder("INBOX")
        other.add_flags(uids[:3], [b"\\Flagged"])
        other.delete_messages(uids[4])
        other.expunge()
    heads = session.heads(uids)
    assert sorted(heads) in (uids[:4], uids)
    for number, uid in enumerate(uids[:4], start=1):
        assert f"internal-{number}\r".encode() in heads[uid].header
    assert {one.uid for one in session.scan(uids[2], uids[3])} == set(uids[2:4])
    session.close()


def test_what_was_asked_ahead_is_answered_whatever_comes_between(bridge: Dovecot) -> None:
    bridge.deliver(*(mail(number) for number in range(6)))
    session = bridge.session()
    session.examine("INBOX")
    uids = sorted(one.uid for one in session.scan(1, None))

    def numbers(found: dict[int, bytes]) -> dict[int, int]:
        return {uid: int(one.partition(b"internal-")[2].split()[0]) for uid, one in found.items()}

    assert numbers(session.identifiers(uids[:2], uids[2:4])) == {uids[0]: 0, uids[1]: 1}
    assert list(session.heads(uids[:1])) == uids[:1]
    assert numbers(session.identifiers(uids[2:4], uids[4:])) == {uids[2]: 2, uids[3]: 3}
    # What imapclient does meanwhile finds no answer that it does not know.
    assert not session.changed()
    assert session.folders()
    assert session.examine("INBOX").messages == 6
    assert numbers(session.identifiers(uids[4:])) == {uids[4]: 4, uids[5]: 5}
    session.close()


@pytest.mark.parametrize(
    "name", ["Labels/Ärger & Lob", 'Folders/a "b" c', "Folders/x\\y", "Labels/&", "tmp_Folders"]
)
def test_trap_30_any_folder_name(bridge: Dovecot, name: str) -> None:
    with bridge.client() as other:
        other.create_folder(name)
    bridge.deliver(mail(1), folder=name)
    session = bridge.session()
    assert name in {one.name for one in session.folders()}
    assert session.examine(name).messages == 1
    with bridge.client() as other:
        other.rename_folder(name, "Folders/renamed")
    with pytest.raises(FolderGoneError) as caught:
        session.examine(name)
    assert caught.value.kind == "validation"
    # The connection goes on.
    assert session.examine("Folders/renamed").messages == 1
    session.close()


def test_folders_come_with_their_attributes(bridge: Dovecot) -> None:
    session = bridge.session()
    found = {one.name: one.attributes for one in session.folders()}
    assert "\\sent" in found["Sent"]
    assert "\\drafts" in found["Drafts"]
    session.close()


def test_implicit_tls_and_starttls_both_lead_in(bridge: Dovecot) -> None:
    for options in (bridge.imap, Imap(port=bridge.tls_port, tls="implicit")):
        session = BridgeSession(options, bridge.pin, ["Subject"])
        session.login(USER, PASSWORD)
        session.close()


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_trap_27_another_certificate_ends_the_connection_before_the_login(
    bridge: Dovecot, tls: str
) -> None:
    port = bridge.port if tls == "starttls" else bridge.tls_port
    with pytest.raises(CertificateError) as caught:
        BridgeSession(Imap(port=port, tls=tls), ":".join(["00"] * 32), ["Subject"])
    assert bridge.pin in caught.value.message
    assert caught.value.kind == "auth"
    # Without a pin the usual rules hold, and nobody vouches for this one.
    with pytest.raises(CertificateError):
        BridgeSession(Imap(port=port, tls=tls), None, ["Subject"])


def test_trap_28_a_server_without_starttls_gets_no_password() -> None:
    with dovecot(encrypted="no") as plain, pytest.raises(BridgeTlsError) as caught:
        BridgeSession(plain.imap, plain.pin, ["Subject"])
    assert "no name or password was sent" in caught.value.message


def test_trap_28_what_is_injected_before_tls_is_thrown_away(bridge: Dovecot) -> None:
    """A proxy adds a line to the answer of STARTTLS; under TLS it must not count as the server's."""
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, target: socket.socket, injected: bytes) -> None:
        try:
            while data := source.recv(65536):
                if injected and b"Begin TLS" in data:
                    data += injected
                    injected = b""
                target.sendall(data)
        except OSError:
            pass

    def serve() -> None:
        outside, _ = listener.accept()
        inside = socket.create_connection(("127.0.0.1", bridge.port))
        back = threading.Thread(
            target=carry,
            args=(inside, outside, b"* CAPABILITY IMAP4rev1 INJECTED\r\n"),
            daemon=True,
        )
        back.start()
        with outside, inside:
            carry(outside, inside, b"")
            inside.shutdown(socket.SHUT_RDWR)
            back.join(10)

    proxy = threading.Thread(target=serve, daemon=True)
    proxy.start()
    with listener:
        port = listener.getsockname()[1]
        try:
            session = BridgeSession(Imap(port=port), bridge.pin, ["Subject"], read_seconds=5)
        except (BridgeDownError, BridgeTlsError):
            pass  # refused altogether: as good
        else:
            session.login(USER, PASSWORD)
            assert b"INJECTED" not in session._client.capabilities()
            assert session.examine("INBOX").messages == 0
            session.close()
        proxy.join(10)
        assert not proxy.is_alive()


@pytest.mark.parametrize("password", ["canary-wrong", "canary-wröng", 'canary "\\ wrong'])
def test_a_wrong_password_is_told_as_auth_and_repeated_nowhere(
    bridge: Dovecot, password: str
) -> None:
    session = BridgeSession(bridge.imap, bridge.pin, ["Subject"])
    with pytest.raises(BridgeLoginError) as caught:
        session.login(USER, password)
    assert caught.value.kind == "auth"
    assert "canary" not in str(caught.value)
    session.close()


def test_nothing_that_listens_and_what_is_no_imap_server() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BridgeDownError, match="Nothing listens"):
        BridgeSession(Imap(port=port), None, ["Subject"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"220 smtp ready\r\n")
            connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(BridgeDownError):
            BridgeSession(Imap(port=listener.getsockname()[1]), None, ["Subject"])


def test_idle_wakes_up_for_new_mail(bridge: Dovecot) -> None:
    session = bridge.session()
    session.examine("INBOX")
    assert session.idles
    threading.Timer(0.3, bridge.deliver, [mail(1)]).start()
    began = time.monotonic()
    assert session.wait(threading.Event(), 20)
    assert time.monotonic() - began < 15
    assert len(list(session.scan(1, None))) == 1
    session.close()


def test_trap_24_mail_that_came_between_looking_and_waiting_is_noticed(bridge: Dovecot) -> None:
    session = bridge.session()
    session.examine("INBOX")
    assert not session.changed()
    bridge.deliver(mail(1))
    assert session.changed()
    assert not session.changed()
    # Also what a command in between was told of.
    bridge.deliver(mail(2))
    list(session.scan(1, None))
    assert session.changed()
    session.close()


def test_trap_21_the_end_of_the_connection_in_idle_is_noticed_without_spinning(
    bridge: Dovecot,
) -> None:
    session = bridge.session()
    session.examine("INBOX")
    threading.Timer(0.3, bridge.kick).start()
    busy = time.process_time()
    with pytest.raises(BridgeDownError):
        session.wait(threading.Event(), 20)
    assert time.process_time() - busy < 0.5
    session.close()


class FrozenLink:
    """A link to Bridge that can be frozen: open at both ends, nothing gets through."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.open = threading.Event()
        self.open.set()
        self._thread = threading.Thread(target=self._serve, args=(port,), daemon=True)
        self._thread.start()

    def _serve(self, port: int) -> None:
        outside, _ = self.listener.accept()
        with outside, socket.create_connection(("127.0.0.1", port)) as inside:
            back = threading.Thread(target=self._carry, args=(inside, outside), daemon=True)
            back.start()
            self._carry(outside, inside)
            with suppress(OSError):
                inside.shutdown(socket.SHUT_RDWR)
            back.join(10)

    def close(self) -> None:
        """Thaw and end it."""
        self.open.set()
        self._thread.join(10)
        self.listener.close()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.open.wait()
                target.sendall(data)
        except OSError:
            pass


def test_trap_22_a_dead_link_is_noticed_at_the_renewal_of_idle(bridge: Dovecot) -> None:
    link = FrozenLink(bridge.port)
    session = BridgeSession(
        Imap(port=link.port), bridge.pin, ["Subject"], read_seconds=1.0, idle_seconds=1.0
    )
    session.login(USER, PASSWORD)
    session.examine("INBOX")
    assert not session.wait(threading.Event(), 10)  # renewed, and alive
    threading.Timer(0.3, link.open.clear).start()
    with pytest.raises(BridgeDownError):
        session.wait(threading.Event(), 10)
    session.close()
    link.close()


def test_trap_22_waiting_ends_at_once_when_told_to_stop(bridge: Dovecot) -> None:
    session = bridge.session()
    session.examine("INBOX")
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    assert not session.wait(stop, 60)
    assert time.monotonic() - began < 5
    session.close()


def test_trap_23_without_idle_it_waits_by_asking() -> None:
    with dovecot(capabilities="IMAP4rev1 UNSELECT UIDPLUS") as plain:
        session = plain.session()
        assert not session.idles
        session.examine("INBOX")
        assert not session.wait(threading.Event(), 0.1)
        plain.deliver(mail(1))
        assert session.changed()
        session.close()


def test_trap_41_imapclients_own_logs_show_no_mail_and_no_password(
    bridge: Dovecot, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bridge.deliver(mail(1, "canary-body", Subject="canary-subject"))
    caplog.clear()
    session = bridge.session()
    session.examine("INBOX")
    (seen,) = session.scan(1, None)
    session.heads([seen.uid])
    session.part(Section(seen.uid, "1", 100))
    session.close()
    assert "canary" not in caplog.text
