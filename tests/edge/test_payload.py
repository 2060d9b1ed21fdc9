"""What leaves of a mail, whatever the mail looks like."""

import json
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.imap.responses import (
    UnreadableResponseError,
    header_fields,
    internal_date,
    messages,
    places,
)
from fleetprompt_edge.imap.session import Head
from fleetprompt_edge.mail.classify import classified, delivery_status
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.identity import identity, identity_by_name
from fleetprompt_edge.mail.signals import Mail, MailSignals
from fleetprompt_edge.mail.snippet import html_text, part_text, snippet
from fleetprompt_edge.mail.structure import Part, parts, text_part
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetprompt.signals.envelope import Producer, read_one
from tests.edge.ingesting import CONNECTOR, TENANT, profile

ARRIVED = datetime(2026, 1, 6, 8, 0, 5, tzinfo=UTC)
HEADER = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <Juergen@example.org>\r\n"
    b'To: "Last, First" <a@example.org>, b@example.org\r\nCc: c@example.org\r\n'
    b"Subject: =?utf-8?b?w4RyZ2Vy?= with\r\n the order\r\nMessage-ID: <m1@example.org>\r\n"
    b"Date: Tue, 06 Jan 2026 09:00:00 +0100\r\nX-Secret-Thing: stays\r\n\r\n"
)
PLAIN = Part("1", "text/plain", "utf-8", "7bit", 5, None, attached=False, flowed=False)


def head(uid: int = 7, size: int = 1234, flags: tuple[str, ...] = ()) -> Head:
    return Head(uid, ARRIVED, size, frozenset(flags), b"")


def made(header: bytes = HEADER, **rest: Any) -> Mail:
    headers = Headers(header)
    fields = {"parts": [], "text": None, **rest}
    return Mail("INBOX", identity(head(), headers), head(), headers, **fields)


def told(mail: Mail, *, with_body: bool = False, **privacy: Any) -> dict[str, Any]:
    """The signal as JSON, after the platform itself has read it."""
    signals = MailSignals(
        Writer(profile(**privacy), TENANT), b"k" * 32, ["me@proton.me"], with_body=with_body
    )
    key = signals.dedupe_key(mail, lambda _: False)
    signal = signals.received(mail, key, ARRIVED)
    read_one(signal.body.encode(), Producer(needs_key=True, connector_id=CONNECTOR))
    found: dict[str, Any] = json.loads(signal.body)
    return found


def test_the_payload_is_the_seeds() -> None:
    attachment = Part(
        "2", "application/pdf", None, "base64", 7800, "Bill.pdf", attached=True, flowed=False
    )
    signal = told(made(parts=[PLAIN, attachment], text="Hello\nthere"))
    assert signal == {
        "type": "email.inbound.received",
        "source": "edge:proton_mail",
        "occurred_at": "2026-01-06T08:00:05Z",
        "subject_type": "email",
        "subject_id": signal["subject_id"],
        "data": {
            "message": {
                "message_id": "<m1@example.org>",
                "imap_uid": 7,
                "folder": "INBOX",
                "internal_date": "2026-01-06T08:00:05Z",
                "from": "Juergen@example.org",
                "to": ["a@example.org", "b@example.org"],
                "cc": ["c@example.org"],
                "subject": "Ärger with the order",
                "snippet": "Hello there",
                "headers": {
                    "From": "Jürgen <Juergen@example.org>",
                    "To": '"Last, First" <a@example.org>, b@example.org',
                    "Subject": "Ärger with the order",
                    "Date": "Tue, 06 Jan 2026 09:00:00 +0100",
                    "Message-ID": "<m1@example.org>",
                },
            },
            "flags": {"seen": False, "answered": False, "flagged": False},
            "attachments": [
                {"filename": "Bill.pdf", "content_type": "application/pdf", "size_bytes": 5700}
            ],
            "direction": "inbound",
        },
        "metadata": {
            "schema_version": 1,
            "correlation_id": f"mail:{signal['subject_id']}",
            "connector_id": CONNECTOR,
            "device_id": CONNECTOR,
            "account_id": "me@proton.me",
        },
        "dedupe_key": signal["dedupe_key"],
    }
    prefix, _, message_id_hash = signal["dedupe_key"].rpartition(":")
    assert prefix == f"email_in:{TENANT}:{CONNECTOR}:INBOX:7"
    assert len(message_id_hash) == 16


def test_the_profile_says_what_leaves() -> None:
    attachment = Part("2", "image/png", None, "base64", 78, "a.png", attached=True, flowed=False)
    mail = made(parts=[attachment], text="The text")
    signal = told(mail, send_headers=("Date",), send_snippet=False, attachment_mode="none")
    message = signal["data"]["message"]
    assert message["headers"] == {"Date": "Tue, 06 Jan 2026 09:00:00 +0100"}
    assert message["subject"] is None
    assert message["snippet"] is None
    assert signal["data"]["attachments"] == []
    assert "Ärger" not in json.dumps(signal, ensure_ascii=False)


def test_hashed_addresses_are_nowhere_in_clear_and_always_the_same() -> None:
    header = HEADER + b""
    signal = told(made(header), hash_addresses=True)
    assert "example.org>" not in json.dumps(
        {
            **signal,
            "data": {
                **signal["data"],
                "message": {
                    **signal["data"]["message"],
                    "message_id": "",
                    "headers": {**signal["data"]["message"]["headers"], "Message-ID": ""},
                },
            },
        }
    )
    message = signal["data"]["message"]
    assert message["from"].startswith("hmac:")
    assert "account_id" not in signal["metadata"]
    assert message["headers"]["From"] == message["from"]
    assert "uergen" not in json.dumps(signal)
    again = told(
        made(header.replace(b"Juergen@example.org", b"JUERGEN@EXAMPLE.org")), hash_addresses=True
    )
    assert again["data"]["message"]["from"] == message["from"]
    assert message["to"] != [message["from"]] * 2


@pytest.mark.parametrize(
    "secret",
    [
        "fp_conn_" + "a" * 43,
        "https://chat.example/hooks/abcdefgh1234",
        "Authorization: Bearer abcdefghijklmnop",
        "-----BEGIN RSA PRIVATE KEY-----",
    ],
)
def test_a_mail_that_quotes_a_secret_is_told_without_it(secret: str) -> None:
    header = HEADER.replace(b"with\r\n the order", secret.encode())
    mail = made(header, text=f"look: {secret} end")
    signal = told(mail, with_body=True)  # the platform takes it
    assert secret not in json.dumps(signal)
    assert "[redacted]" in signal["data"]["message"]["snippet"]
    assert "[redacted]" in signal["data"]["body_text"]


def test_a_header_that_is_named_like_a_secret_never_leaves() -> None:
    mail = made(HEADER[:-2] + b"Authorization: canary\r\nX-Api-Key: canary\r\n\r\n")
    assert "canary" not in json.dumps(told(mail, send_headers=("Authorization", "X-Api-Key")))


def test_trap_15_a_hostile_message_id_leaves_as_one_clean_line() -> None:
    for raw in (
        b"<" + b"x" * 10_000 + b"@h>",
        b"<a\x00b\r\n c@h>",
        "<ü@h>".encode(),
        b"<\xff\xfe@h>",
        b"",
    ):
        header = b"From: a@example.org\r\nMessage-ID: " + raw + b"\r\n\r\n"
        first, second = told(made(header)), told(made(header))
        assert first == second
        message_id = first["data"]["message"]["message_id"]
        assert message_id is None or (len(message_id) <= 998 and message_id.isprintable())
        assert len(first["dedupe_key"]) <= 512


def test_trap_16_bridges_own_references_and_ids_are_left_out() -> None:
    references = b"References: <a@example.org> <x@protonmail.internalid>\r\n"
    mail = made(HEADER[:-2] + references + b"X-Pm-Gluon-Id: 1\r\n\r\n")
    other = made(HEADER[:-2] + references + b"X-Pm-Gluon-Id: 2\r\n\r\n")
    assert mail.identity == other.identity
    signal = told(mail, send_headers=("References",))
    assert signal["data"]["message"]["headers"] == {"References": "<a@example.org>"}


def test_identity_is_protons_id_whatever_else_changes() -> None:
    one = Headers(b"X-Pm-Internal-Id: abc\r\nMessage-ID: <1@h>\r\nSubject: x\r\n")
    other = Headers(b"X-Pm-Internal-Id: abc\r\nMessage-ID: <2@h>\r\nSubject: y\r\n")
    assert identity(head(), one) == identity(head(9, 99), other)
    assert identity(head(), Headers(b"X-Pm-Internal-Id: abd\r\n")) != identity(head(), one)


@given(
    st.lists(st.binary(max_size=30), min_size=2, max_size=2, unique=True),
    st.sampled_from([b"Message-ID", b"Subject", b"From"]),
)
def test_different_mails_have_different_identities(values: list[bytes], name: bytes) -> None:
    clean = [value.translate(None, b"\r\n").strip() for value in values]
    one, other = (Headers(name + b": " + value + b"\r\n") for value in clean)
    same = b" ".join(clean[0].split()) == b" ".join(clean[1].split())
    if not same:
        assert identity(head(), one) != identity(head(), other)


@pytest.mark.parametrize(
    ("encoding", "charset", "raw", "expected"),
    [
        ("base64", "utf-8", b"SGk=", "Hi"),
        ("base64", "utf-8", b"w4RyZ2VyIHVuZCBMb2", "Ärger und Lo"),
        ("base64", "utf-8", b"!!SGVs\r\nbG8=??", "Hello"),
        ("base64", "utf-8", b"=====", ""),
        ("quoted-printable", "iso-8859-1", b"=C4rger=\r\n!", "Ärger!"),
        ("quoted-printable", "utf-8", b"=ZZ =C3", "=ZZ "),
        ("7bit", "no-such-charset", b"plain", "plain"),
        ("8bit", "utf-8", b"\xc4rger", "Ärger"),
        ("8bit", "us-ascii", "Ärger".encode(), "Ärger"),
        ("8bit", "utf-16", b"\xff", ""),
        ("8bit", "idna", b"xn--\xff", "xn--ÿ"),
        ("8bit", "base64", b"abc", "abc"),
        ("x-unheard-of", None, b"text", "text"),
    ],
)
def test_trap_45_a_text_that_is_not_what_it_says(
    encoding: str, charset: str | None, raw: bytes, expected: str
) -> None:
    part = PLAIN._replace(encoding=encoding, charset=charset)
    assert part_text(raw, part) == expected


@given(
    st.binary(max_size=300),
    st.text(max_size=12),
    st.sampled_from(["base64", "quoted-printable", "8bit"]),
)
def test_trap_45_no_text_whatever_stops_a_mail(raw: bytes, charset: str, encoding: str) -> None:
    for content_type in ("text/plain", "text/html"):
        part = PLAIN._replace(
            encoding=encoding, charset=charset, content_type=content_type, flowed=True
        )
        text = part_text(raw, part)
        signal = told(made(b"Subject: " + raw + b"\r\nFrom: " + raw, text=text), with_body=True)
        found = signal["data"]["message"]["snippet"]
        assert found is None or len(found) <= 200


HOSTILE = (
    *(
        "(",
        ")",
        "<",
        ">",
        '"',
        "\\",
        "@",
        ",",
        ";",
        ":",
        "[",
        "]",
        "=?utf-8?b?a?=",
        "=?utf-8?q?=FF?=",
    ),
    *(
        "=?x?b?",
        "?=",
        " ",
        "\t",
        "\r\n ",
        "eve@example.org",
        "\x00",
        "ü",
        "\udcff",
        "=?utf-8?b?_?=",
    ),
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(HOSTILE), max_size=20), st.integers(1, 1_500))
def test_trap_15_no_header_whatever_stops_a_mail(pieces: list[str], times: int) -> None:
    value = ("".join(pieces).encode("utf-8", "surrogateescape") * times)[:1_500]
    names = ("From", "To", "Cc", "Subject", "Message-ID", "Content-Type", "Precedence", "Date")
    header = b"".join(name.encode() + b": " + value + b"\r\n" for name in names)
    mail = made(header, classification=classified(Headers(header)))
    assert "incomplete" not in told(mail)["data"]


def test_trap_15_a_header_that_the_parsers_give_up_on_still_says_who_wrote() -> None:
    nested = (
        b"From: " + b"(" * 5_000 + b" <eve@example.org>\r\nSubject: =?utf-8?b?a?= hello\r\n\r\n"
    )
    message = told(made(nested))["data"]["message"]
    assert (message["from"], message["subject"]) == ("eve@example.org", "=?utf-8?b?a?= hello")


def test_what_nobody_thought_of_stops_no_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([RuntimeError("first"), None])

    def once(_: Headers) -> None:
        if (error := next(calls)) is not None:
            raise error

    monkeypatch.setattr(Headers, "message_id", once)
    data = told(made())["data"]
    assert data["incomplete"] is True
    assert (data["message"]["imap_uid"], data["message"]["from"]) == (7, None)


@pytest.mark.parametrize(
    "piece",
    [
        "<a ",
        "<a b='",
        '<a b="',
        "<a b=",
        "<!--",
        "<!",
        "<?",
        "</",
        "<",
        "<svg></head>",
        "<a '><b \">",
    ],
)
def test_trap_44_markup_that_is_meant_to_harm_is_read_in_one_pass(piece: str) -> None:
    began = time.process_time()
    html_text((piece * 65_536)[:65_536] + "'>")
    # Minutes where each tag is looked for to the end of the text.
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("<a href='x>y'>link</a> it's", "link it's"),
        ('<td width="1>ok</td> a "quote" <p>n', 'ok a "quote" n'),
        ("a < b <3 &amp;&lt;", "a < b <3 &<"),
        ("x<!-- c --><!--[if mso]><p>no</p><![endif]-->y<a hre", "xy"),
        ("<SCRIPT>a<b'</SCRIPT >z<style>p{}", "z"),
        ("<svg><svg></svg>no</svg>b<template>no", "b"),
        (f"&#{'9' * 5000};", f"&#{'9' * 5000};"),
    ],
)
def test_trap_45_broken_markup_shows_what_a_reader_would_see(markup: str, shown: str) -> None:
    assert " ".join(html_text(markup).split()) == shown


def test_trap_45_html_alone_and_flowed_text() -> None:
    html = (
        b"<html><head><style>p{}</style><title>t</title></head>"
        b"<body><p>One&nbsp;&amp;</p><script>x</script><div>two"
    )
    part = PLAIN._replace(content_type="text/html")
    assert snippet(part_text(html, part), 200) == "One & two"
    flowed = PLAIN._replace(flowed=True)
    assert part_text(b"One \nline\n two\n", flowed) == "One line\ntwo"


def test_the_snippet_is_what_the_sender_wrote() -> None:
    text = "Yes,\n  that works.\n\nAm 6. Januar schrieb Ada:\n> Shall we?\n-- \nJürgen"
    assert snippet(text, 200) == "Yes, that works."
    assert snippet("> only\n> a quote", 200) == "> only > a quote"
    assert snippet(" \n\u200b\n", 200) is None
    assert snippet("x" * 300, 200) == "x" * 199 + "…"


def test_trap_46_dates_of_all_kinds() -> None:
    assert internal_date(b" 6-Jan-2026 09:00:05 +0100") == ARRIVED
    assert internal_date(b"06-jan-2026 08:00:05 +0000") == ARRIVED
    for wrong in (
        b"06-Foo-2026 08:00:05 +0000",
        b"31-Feb-2026 08:00:05 +0000",
        b"",
        None,
        b"06-Jan-2026 08:00:05 +9999",
    ):
        assert internal_date(wrong) is None
    header = HEADER.replace(b"Tue, 06 Jan 2026 09:00:00 +0100", b"yesterday, perhaps \x00")
    assert told(made(header))["occurred_at"] == "2026-01-06T08:00:05Z"


def structure(raw: bytes) -> Any:
    (items,) = messages([b"* 1 FETCH (UID 1 BODYSTRUCTURE " + raw + b")"])
    return items[b"BODYSTRUCTURE"]


def test_the_structure_names_the_text_and_the_attachments() -> None:
    found = parts(
        structure(
            b'((("text" "plain" ("charset" "utf-8" "format" "flowed") NIL NIL "7bit" 10 1 NIL NIL NIL)'
            b'("text" "html" ("charset" "utf-8") NIL NIL "base64" 78 1 NIL NIL NIL) "alternative")'
            b'("application" "pdf" ("name" "wrong") NIL NIL "base64" 7800 NIL'
            b' ("attachment" ("filename*" "utf-8\'\'R%C3%A4t%2F..%2Fsel.pdf")))'
            b'("message" "rfc822" NIL NIL NIL "7bit" 99 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)'
            b' ("text" "plain" NIL NIL NIL "7bit" 5 1) 3 NIL ("attachment" NIL))'
            b'("text" "plain" NIL NIL NIL "7bit" 5 1 NIL'
            b' ("attachment" ("filename*0" "no" "filename*1" "te.txt")))'
            b' "mixed")'
        )
    )
    assert [(one.section, one.content_type, one.filename, one.attached) for one in found] == [
        ("1.1", "text/plain", None, False),
        ("1.2", "text/html", None, False),
        ("2", "application/pdf", "sel.pdf", True),
        ("3", "message/rfc822", None, True),
        ("4", "text/plain", "note.txt", True),
    ]
    assert found[0].flowed
    assert text_part(found, "html") == found[1]


def test_trap_44_a_mime_bomb_stays_small() -> None:
    many = b"(" + b'("image" "png" NIL NIL NIL "base64" 5)' * 10_000 + b' "mixed")'
    assert len(parts(structure(many))) == 500
    attachments = told(made(parts=parts(structure(many))))["data"]["attachments"]
    assert len(attachments) == 100
    with pytest.raises(UnreadableResponseError):
        structure(b"(" * 5000 + b")" * 5000)
    names = b" ".join(b'"filename*%d" "x"' % number for number in range(5000))
    bomb = b'("image" "png" NIL NIL NIL "base64" 5 NIL ("attachment" (' + names + b")))"
    assert len(parts(structure(bomb))[0].filename or "") <= 255


def test_a_signal_is_cut_to_what_may_be_sent() -> None:
    addresses = b", ".join(b"address-%d@%s.example" % (n, b"x" * 200) for n in range(300))
    mail = made(HEADER.replace(b"b@example.org", addresses), text="x" * 200_000)
    signal = told(mail, with_body=True, body_max_characters=30_000, send_headers=("To", "Subject"))
    assert len(json.dumps(signal, ensure_ascii=False).encode()) <= 65_536
    assert "body_text" in signal["data"]["truncated"]
    assert signal["data"]["message"]["subject"] == "Ärger with the order"


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (b"Content-Type: multipart/report; report-type=delivery-status; boundary=x", "bounce"),
        (b"Content-Type: text/plain\r\nX-Failed-Recipients: a@example.org", "bounce"),
        (b'Content-Type: multipart/report; report-type="feedback-report"', "complaint"),
        (b"Auto-Submitted: auto-replied; owner-email=x", "auto_reply"),
        (b"Precedence: auto_reply", "auto_reply"),
        (b"X-Autoreply: yes", "auto_reply"),
        (b"List-Id: <list.example.org>", "list"),
        (b"Auto-Submitted: no", None),
        (b"Content-Type: multipart/report; report-type=disposition-notification", None),
    ],
)
def test_mail_of_machines_is_told_as_such(fields: bytes, kind: str | None) -> None:
    found = classified(Headers(fields))
    assert (found and found["kind"]) == kind


def test_a_bounce_names_whom_it_concerns_and_why() -> None:
    raw = (
        b"Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; <Bob@example.org>\r\n"
        b"Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 canary\r\n"
    )
    status = delivery_status(raw)
    assert status == {"recipient": "Bob@example.org", "action": "failed", "status": "5.1.1"}
    signal = told(made(classification={"kind": "bounce", **status}), hash_addresses=True)
    assert signal["data"]["classification"]["recipient"].startswith("hmac:")
    assert delivery_status(b"Status: canary\r\nAction: \xff") == {"action": "ÿ"}


def test_fetch_responses_in_all_their_forms() -> None:
    raw: list[bytes | tuple[bytes, bytes]] = [
        (b'* 3 FETCH (UID 9 FLAGS (\\Seen "x") BODY[HEADER.FIELDS (FROM "TO")]<0> {5}', b"ab)\r\n"),
        b' INTERNALDATE "06-Jan-2026 08:00:05 +0000" X NIL)',
        b"* 4 FETCH (FLAGS (\\Seen))",
    ]
    first, second = messages(raw)
    assert first[b"UID"] == b"9"
    assert first[b'BODY[HEADER.FIELDS (FROM "TO")]<0>'] == b"ab)\r\n"
    assert first[b"X"] is None
    assert second == {b"FLAGS": [b"\\Seen"]}
    (quoted,) = messages([b'* 1 FETCH (X "a\\"b\\\\c")'])
    assert quoted == {b"X": b'a"b\\c'}


@pytest.mark.parametrize(
    "raw",
    [
        [b"* 1 FETCH (UID 1"],
        [b"* 1 FETCH "],
        [b"* 1 FETCH (UID)"],
        [b"x"],
        [(b"* 1 FETCH (X {3}", b"abc")],
        [b'* 1 FETCH (X "abc)'],
    ],
)
def test_a_response_that_is_cut_is_refused(raw: list[Any]) -> None:
    with pytest.raises(UnreadableResponseError):
        list(messages(raw))


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_no_response_whatever_does_worse_than_being_refused(raw: list[bytes]) -> None:
    for read in (messages, places, header_fields):
        with suppress(UnreadableResponseError):
            list(read([b"* 1 FETCH " + one for one in raw]))


ANSWER = b"* 7 FETCH (UID 9 BODY[HEADER.FIELDS (X-PM-INTERNAL-ID MESSAGE-ID)]<0> {9}"


@pytest.mark.parametrize(
    "raw",
    [
        [(ANSWER, b"a: b)\r\n\r\n"), b")"],
        [(ANSWER.replace(b"UID 9 ", b""), b"a: b)\r\n\r\n"), b" UID 9)"],
        [(ANSWER.replace(b"UID 9", b"FLAGS (\\Seen) UID 9"), b"a: b)\r\n\r\n"), b")"],
        [(ANSWER.lower().replace(b"body", b"BODY"), b"a: b)\r\n\r\n"), b" MODSEQ (5))"],
        [b"* 7 FETCH (FLAGS ())", (ANSWER, b"a: b)\r\n\r\n"), b")", b"* 8 FETCH (UID 1 FLAGS (x))"],
    ],
)
def test_trap_17_the_short_way_and_the_long_way_read_the_same_header(raw: list[Any]) -> None:
    assert list(header_fields(raw)) == [(9, b"a: b)\r\n\r\n")]


@pytest.mark.parametrize(
    "line",
    [
        b'* 7 FETCH (UID 9 INTERNALDATE "06-Jan-2026 09:00:05 +0100" RFC822.SIZE 12)',
        b'* 7 FETCH (UID 9 FLAGS (\\Seen) INTERNALDATE " 6-Jan-2026 08:00:05 +0000" RFC822.SIZE 12)',
        b'* 7 FETCH (RFC822.SIZE 12 INTERNALDATE "06-Jan-2026 03:00:05 -0500" UID 9)',
    ],
)
def test_trap_46_the_short_way_and_the_long_way_read_the_same_place(line: bytes) -> None:
    at = int(datetime(2026, 1, 6, 8, 0, 5, tzinfo=UTC).timestamp())
    assert list(places([line, b"* 8 FETCH (FLAGS ())"])) == [(9, at, 12)]


@given(
    st.lists(
        st.sampled_from(
            [
                b"X-Pm-Internal-Id: abc==\r\n",
                b"X-Pm-Internal-Id:\r\n abc==\r\n",
                b"X-Pm-Internal-Id: abc==\r\n folded\r\n",
                b"x-pm-internal-id:\tother \r\n",
                b"X-Pm-Internal-Id : third\r\n",
                b"X-Pm-Internal-Id: \r\n",
                b"Message-ID: <1@h>\r\n",
                b"Message-Id:\r\n <2@h>\r\n",
                b"garbage\r\n",
            ]
        ),
        max_size=4,
    )
)
def test_the_identity_is_the_same_from_two_fields_and_from_all(fields: list[bytes]) -> None:
    raw = b"".join(fields) + b"\r\n"
    headers = Headers(b"From: a@example.org\r\n" + raw)
    arrived = head().arrived
    assert arrived is not None
    short = identity_by_name(raw, int(arrived.timestamp()), head().size)
    whole = identity(head(), headers)
    if short is None:
        assert not headers.raw("message-id")
    else:
        assert short == whole
