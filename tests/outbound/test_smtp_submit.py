"""Submission to a mail server: what each answer means, and that doubt begins with DATA."""

import datetime as dt
import logging
import ssl
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.smtp import (
    Audience,
    Letter,
    Picture,
    check_smtp,
    same_address,
    submit,
    unseal_smtp,
)
from fleetprompt.outbound.transports.smtp.submit import address_literal
from fleetprompt.settings import Settings
from tests.doubles.smtp import PASSWORD, USER, MailServer, running_smtp

SENDER = "ops@fund.example"
ADMINS = ("ada@fund.example", "ben@fund.example")
LETTER = Letter(
    token="0f" * 16,
    subject="🔴 Acme · 3 errors",
    text="three errors\n.\nand a dot\n",
    html="<p>three errors</p>",
    date=dt.datetime(2026, 3, 8, 9, tzinfo=dt.UTC),
)
SETTINGS = Settings(allowed_private_networks=(IPv4Network("127.0.0.0/8"),), allow_plain_http=True)


@pytest.fixture
def server() -> Iterator[MailServer]:
    with running_smtp() as running:
        yield running


async def send(server: MailServer, *to: str, scheme: str = "smtp", **named: Any) -> Outcome:
    client = named.pop("client", None) or OutboundClient(SETTINGS)
    recipients = to or ADMINS
    target = unseal_smtp(f"{scheme}://127.0.0.1:{server.port}", allow_plain=True)
    message = LETTER.compose(Audience(SENDER, recipients))
    return await submit(client, target, message, SENDER, recipients, **named)


async def test_a_letter_arrives_as_it_was_written_with_the_checked_envelope(
    server: MailServer,
) -> None:
    assert await send(server) == Outcome("posted")
    (mail,) = server.mails
    assert (mail.sender, mail.recipients) == (SENDER, list(ADMINS))
    assert mail.message["Subject"] == LETTER.subject
    assert mail.message["X-FleetPrompt-Token"] == LETTER.token
    assert mail.message["Message-ID"] == f"<fleetprompt.{LETTER.token}@fund.example>"
    text = mail.message.get_body(("plain",))
    assert text is not None
    assert text.get_content().replace("\r\n", "\n") == LETTER.text


@pytest.mark.parametrize(
    ("step", "answer", "state", "kind"),
    [
        ("EHLO", "421 too busy", "retryable", "network"),
        ("EHLO", "554 no", "rejected", "validation"),
        ("MAIL", "451 greylisted", "retryable", "network"),
        ("MAIL", "550 not you", "rejected", "validation"),
        ("MAIL", "530 log in first", "rejected", "auth"),
        ("RCPT", "450 mailbox busy", "retryable", "network"),
        ("RCPT", "550 no such user", "rejected", "validation"),
        ("DATA", "452 disk full", "retryable", "network"),
        ("DATA", "554 spam", "rejected", "validation"),
        ("DATA", "421 shutting down", "retryable", "network"),
    ],
)
async def test_every_reply_with_a_code_is_definite(
    server: MailServer, step: str, answer: str, state: str, kind: str
) -> None:
    """RFC 5321 §4.2.1: 4yz and 5yz were not accepted, whenever they are said."""
    server.refusals[step] = f"{answer} canary-in-reply"
    outcome = await send(server)
    assert (outcome.state, outcome.error_kind) == (state, kind)
    assert "canary" not in outcome.message
    assert server.mails == []


@pytest.mark.parametrize(
    ("drop", "state", "mails"),
    [("MAIL", "retryable", 0), ("DATA before", "unknown", 0), ("DATA after", "unknown", 1)],
)
async def test_a_lost_answer_leaves_doubt_only_from_data_on(
    server: MailServer, drop: str, state: str, mails: int
) -> None:
    """Trap 36's mail half: after DATA nobody can tell, and the transport does not pretend to."""
    server.drop = drop
    outcome = await send(server)
    assert (outcome.state, outcome.error_kind) == (state, "network")
    assert len(server.mails) == mails


async def test_one_refused_recipient_does_not_keep_the_others_from_theirs(
    server: MailServer,
) -> None:
    server.refusals[ADMINS[0]] = "550 unknown"
    outcome = await send(server)
    assert outcome == Outcome("posted", message="The mail server refused 1 of 2 recipients.")
    (mail,) = server.mails
    assert mail.recipients == [ADMINS[1]]


async def test_a_domain_outside_ascii_needs_nothing_of_the_server() -> None:
    with running_smtp(international=False) as server:
        assert (await send(server, "ada@bücher.example")).state == "posted"
        outcome = await send(server, "jörg@fund.example")
    assert (outcome.state, outcome.error_kind) == ("rejected", "validation")
    (mail,) = server.mails
    assert mail.recipients == ["ada@xn--bcher-kva.example"]
    assert mail.message["To"] == "ada@xn--bcher-kva.example"


async def test_a_person_outside_ascii_is_addressed_as_they_are_written(server: MailServer) -> None:
    """RFC 6532: an encoded word inside an address would be another address."""
    assert (await send(server, "jörg@fund.example")).state == "posted"
    (mail,) = server.mails
    assert mail.recipients == ["jörg@fund.example"]
    assert mail.message["To"] == "jörg@fund.example"
    assert mail.message["Subject"] == LETTER.subject


@pytest.mark.parametrize(
    ("ip", "name"),
    [
        ("192.0.2.7", "[192.0.2.7]"),
        ("2001:db8::7", "[IPv6:2001:db8::7]"),
        ("fe80::7%eth0", "[IPv6:fe80::7]"),
    ],
)
def test_a_client_without_a_name_calls_itself_by_its_address(ip: str, name: str) -> None:
    """RFC 5321 §4.1.3."""
    assert address_literal(ip) == name


async def test_all_refused_is_retryable_if_one_may_be_tried_again(server: MailServer) -> None:
    server.refusals = {ADMINS[0]: "550 unknown", ADMINS[1]: "451 later"}
    assert (await send(server)).state == "retryable"
    assert server.mails == []


async def test_nothing_is_begun_when_it_is_too_late(server: MailServer) -> None:
    outcome = await send(server, not_after=time.monotonic() - 1)
    assert outcome.state == "retryable"
    assert server.mails == []


async def test_nobody_listens(server: MailServer) -> None:
    target = unseal_smtp("smtp://127.0.0.1:1", allow_plain=True)
    outcome = await check_smtp(OutboundClient(SETTINGS), target)
    assert (outcome.state, outcome.error_kind) == ("retryable", "network")


async def test_a_private_server_needs_the_operators_leave(server: MailServer) -> None:
    """Trap 30, for mail."""
    outcome = await send(server, client=OutboundClient(Settings(allow_plain_http=True)))
    assert (outcome.state, outcome.error_kind) == ("rejected", "validation")
    assert server.sessions == 0


async def test_in_clear_only_where_the_operator_allows_it(server: MailServer) -> None:
    target = unseal_smtp(f"smtp://127.0.0.1:{server.port}", allow_plain=False)
    outcome = await check_smtp(OutboundClient(SETTINGS), target)
    assert (outcome.state, outcome.error_kind) == ("rejected", "validation")
    assert "STARTTLS" in outcome.message


@pytest.mark.parametrize(
    ("password", "refusal", "state", "kind"),
    [
        (PASSWORD, "", "posted", None),
        ("wrong-canary", "", "rejected", "auth"),
        (PASSWORD, "454 4.7.0 Temporary failure canary", "retryable", "network"),
        (PASSWORD, "535 5.7.8 canary", "rejected", "auth"),
    ],
)
async def test_logins_are_judged_by_their_code_and_never_shown(
    password: str,
    refusal: str,
    state: str,
    kind: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with running_smtp(login=True) as server:
        if refusal:
            server.refusals["AUTH"] = refusal
        sealed = f'{{"url": "smtp://{USER}@127.0.0.1:{server.port}", "token": "{password}"}}'
        target = unseal_smtp(sealed, allow_plain=True)
        outcome = await check_smtp(OutboundClient(SETTINGS), target)
    assert (outcome.state, outcome.error_kind) == (state, kind)
    ours = [one.getMessage() for one in caplog.records if not one.name.startswith("mail.log")]
    for shown in (repr(target), outcome.message, *ours):
        assert "canary" not in shown


async def test_a_login_that_the_server_does_not_offer_is_told(server: MailServer) -> None:
    sealed = f'{{"url": "smtp://u@127.0.0.1:{server.port}", "token": "p"}}'
    outcome = await check_smtp(OutboundClient(SETTINGS), unseal_smtp(sealed, allow_plain=True))
    assert (outcome.state, outcome.error_kind) == ("rejected", "auth")


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
async def test_tls_is_used_and_its_certificate_checked(tmp_path: Path, scheme: str) -> None:
    offered, trusting = certificates(tmp_path)
    options: dict[str, Any] = {"tls": offered} if scheme == "smtps" else {"starttls": offered}
    with running_smtp(**options) as server:
        client = OutboundClient(SETTINGS, ssl_context=trusting)
        assert (await send(server, scheme=scheme, client=client)).state == "posted"
        stranger = await send(server, scheme=scheme)
        assert (stranger.state, stranger.error_kind) == ("retryable", "network")
        assert len(server.mails) == 1
        assert server.encrypted == [True]


def certificates(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for 127.0.0.1, and a client's that trusts it."""
    from ipaddress import ip_address

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    offered = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    offered.load_cert_chain(path)
    return offered, ssl.create_default_context(cafile=str(path))


@pytest.mark.parametrize(
    "sealed",
    [
        "https://mail.example.org",
        "smtp://",
        "smtp://user:secret-canary@mail.example.org",
        "smtp://mail.example.org/path",
        "smtp://user@mail.example.org",
        '{"url": "smtp://mail.example.org", "token": "secret-canary"}',
        '{"url": 5, "token": "secret-canary"}',
        '{"url": "smtp://u@mail.example.org:99999", "token": "secret-canary"}',
        '{"url": "smtp://u@0x7f.1", "token": "secret-canary"}',
        '{"url": "smtp://u@h\\r\\nx", "token": "secret-canary"}',
        "{",
    ],
)
def test_servers_that_cannot_be_one_are_refused_without_repeating_them(sealed: str) -> None:
    with pytest.raises(InvalidError) as caught:
        unseal_smtp(sealed, allow_plain=True)
    assert "canary" not in caught.value.detail


@pytest.mark.parametrize(
    "changed",
    [
        {"sender": "a@b\r\nBcc: x@evil.example"},
        {"recipients": ("a@b.example\r\nBcc: x@evil.example",)},
        {"recipients": ("not an address",)},
        {"recipients": ()},
        {"sender": None},
    ],
)
def test_headers_take_no_line_breaks_and_no_strangers(changed: dict[str, Any]) -> None:
    """Trap 39."""
    named: dict[str, Any] = {"sender": SENDER, "recipients": ADMINS} | changed
    with pytest.raises(ValueError):
        LETTER.compose(Audience(**named))


def test_a_subject_with_a_line_break_is_refused() -> None:
    """Trap 39."""
    from dataclasses import replace

    with pytest.raises(ValueError, match="linefeed"):
        replace(LETTER, subject="Acme\r\nBcc: x@evil.example").compose(Audience(SENDER, ADMINS))


def test_the_same_letter_is_the_same_bytes() -> None:
    """Trap 42."""
    from dataclasses import replace

    letter = replace(LETTER, picture=Picture("trend", b"\x89PNG"))
    assert letter.compose(Audience(SENDER, ADMINS)) == letter.compose(Audience(SENDER, ADMINS))


def test_equal_addresses_are_equal_however_they_are_written() -> None:
    assert same_address("Ada@FUND.example") == same_address("ada@fund.example")
    assert same_address("ada@bücher.example") == same_address("ada@xn--bcher-kva.example")
    for other in ("ada@fund.example.evil.test", "ada@evilfund.example", "ada+x@fund.example"):
        assert same_address(other) != same_address("ada@fund.example")
