"""Handing a mail over to a real SMTP server, with the pinned certificate, and what its answers mean."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fleetprompt_edge.profile import Smtp
from fleetprompt_edge.sending.smtp import Courier

from tests.doubles.smtp import PASSWORD, USER, MailServer, running_smtp
from tests.edge.dovecot import bridge_certificate
from tests.edge.ingesting import TurnedClock
from tests.edge.sending import sending_profile

MAIL = b"From: me@proton.me\r\nTo: a@example.org\r\nSubject: x\r\nMessage-ID: <1@p>\r\n\r\n.dot\r\n"


class Desk:
    """A courier and the server it goes to."""

    def __init__(self, server: MailServer, pin: str, **options: object) -> None:
        self.clock = TurnedClock()
        made = sending_profile()
        smtp = replace(Smtp(), port=server.port, **options)  # type: ignore[arg-type]  # as named there
        bridge = replace(made.bridge, username=USER, certificate_sha256=pin, smtp=smtp)
        self.courier = Courier(replace(made, bridge=bridge), PASSWORD, self.clock)

    def send(self) -> tuple[str, str]:
        """What became of a mail, and its class."""
        done = self.courier.hand_over("me@proton.me", ["a@example.org", "B@example.org"], MAIL)
        assert PASSWORD not in repr(done)
        return done.became, done.kind


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    """A certificate like Bridge's: its fingerprint and the server's context."""
    folder: Path = tmp_path_factory.mktemp("certificate")
    pin = bridge_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", next(folder.glob("key*.pem")))
    return pin, context


@pytest.fixture
def server(certificate: tuple[str, ssl.SSLContext]) -> Iterator[MailServer]:
    """A server with STARTTLS and login."""
    with running_smtp(starttls=certificate[1], login=True) as made:
        yield made


def test_a_mail_goes_over_the_pinned_connection(
    server: MailServer, certificate: tuple[str, ssl.SSLContext]
) -> None:
    assert Desk(server, certificate[0]).send()[0] == "taken"
    (mail,) = server.mails
    assert (mail.sender, mail.recipients) == ("me@proton.me", ["a@example.org", "B@example.org"])
    assert mail.message.get_content().strip() == ".dot"
    assert server.encrypted == [True]


def test_implicit_tls_is_pinned_as_well(certificate: tuple[str, ssl.SSLContext]) -> None:
    # The stand-in looks for STARTTLS before it lets anybody log in; over TLS it offers the login at once.
    with running_smtp(tls=certificate[1], login=True) as server:
        assert Desk(server, certificate[0], tls="implicit").send()[0] == "taken"
        assert Desk(server, ":".join(["AB"] * 32), tls="implicit").send() == ("not_taken", "auth")
        assert len(server.mails) == 1


@pytest.mark.parametrize(
    ("answer", "became", "kind"),
    [
        ("554 5.0.0 Error: transaction failed: invalid return path", "refused", "validation"),
        ("554 5.0.0 cannot send from address x@y.org", "refused", "validation"),
        ("554 5.0.0 too many failed requests", "not_taken", "rate_limit"),
        ("554 5.0.0 429 Too Many Requests", "doubtful", "rate_limit"),
        ("554 5.0.0 Error: no internet connection", "doubtful", "network"),
        ("451 4.3.0 later", "doubtful", "network"),
    ],
)
def test_trap_2_the_words_of_a_554_decide(
    server: MailServer,
    certificate: tuple[str, ssl.SSLContext],
    answer: str,
    became: str,
    kind: str,
) -> None:
    server.refusals["DATA"] = answer
    assert Desk(server, certificate[0]).send() == (became, kind)


def test_trap_3_a_refused_login_is_not_tried_again_at_once(
    server: MailServer, certificate: tuple[str, ssl.SSLContext]
) -> None:
    server.refusals["AUTH"] = "454 4.7.0 Temporary authentication failure"
    desk = Desk(server, certificate[0])
    assert {desk.send() for _ in range(20)} == {("not_taken", "network")}
    # The server is greeted twice on a connection: before STARTTLS and after it.
    assert server.sessions <= 2
    desk.clock.turn(1000)
    assert desk.send() == ("not_taken", "auth")
    assert server.sessions <= 4
    del server.refusals["AUTH"]
    desk.clock.turn(1000)
    assert desk.send()[0] == "taken"


def test_a_password_that_bridge_cannot_have_made_is_a_refused_login(
    server: MailServer, certificate: tuple[str, ssl.SSLContext]
) -> None:
    desk = Desk(server, certificate[0])
    desk.courier._password = "pässwörd"
    assert desk.send() == ("not_taken", "network")
    desk.clock.turn(1000)
    assert desk.send() == ("not_taken", "auth")


def test_trap_4_a_connection_that_ends_leaves_a_doubt_only_once_the_mail_was_given(
    server: MailServer, certificate: tuple[str, ssl.SSLContext]
) -> None:
    desk = Desk(server, certificate[0])
    server.drop = "MAIL"
    assert desk.send() == ("not_taken", "network")
    server.drop = "DATA after"
    assert desk.send() == ("doubtful", "network")
    assert len(server.mails) == 1


def test_traps_4_and_7_an_answer_later_than_the_time_limit_leaves_a_doubt(
    server: MailServer, certificate: tuple[str, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The profile asks for more than the 120 s that Bridge may take; here both are a hundredth."""
    taken = MailServer.handle_DATA

    async def slow(self: MailServer, *rest: Any) -> str:
        answer = await taken(self, *rest)
        await asyncio.sleep(0.95)
        return answer

    monkeypatch.setattr(MailServer, "handle_DATA", slow)
    assert Desk(server, certificate[0], timeout_seconds=0.3).send() == ("doubtful", "network")
    assert Desk(server, certificate[0], timeout_seconds=30).send()[0] == "taken"
    assert len(server.mails) == 2


def test_traps_27_and_28_nothing_is_sent_to_another_certificate_or_in_clear(
    server: MailServer,
) -> None:
    assert Desk(server, ":".join(["AB"] * 32)).send() == ("not_taken", "auth")
    assert server.mails == []
    with running_smtp(login=True) as bare:
        assert Desk(bare, ":".join(["AB"] * 32)).send() == ("not_taken", "network")
        assert bare.mails == []


def test_a_closed_port_is_no_doubt(certificate: tuple[str, ssl.SSLContext]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    server = MailServer(port=port)
    assert Desk(server, certificate[0]).send() == ("not_taken", "network")
