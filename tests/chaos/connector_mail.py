"""Mail as it really comes: every shape that has broken a mail program, each with a number to know it by."""

import random
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from tests.edge.dovecot import USER

_WORDS = (
    *("order", "invoice", "carrier", "délai", "straße", "見積"),
    *("refund", "parcel", "signature", "Tuesday", "naïve", "reply"),
)


def mails(count: int, seed: int, folder: Path | None = None) -> Iterator[tuple[str, bytes]]:
    """Subjects, all different, with the mails that have them; made, or made of the mails in a folder."""
    chance = random.Random(seed)
    found = (
        [one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()] if folder else []
    )
    for number in range(count):
        subject = f"#{number:05d}"
        raw = chance.choice(found) if found else _made(chance)
        yield subject, _marked(chance, number, subject, raw)


def _marked(chance: random.Random, number: int, subject: str, raw: bytes) -> bytes:
    """As Bridge hands it out: with Proton's id. What comes first counts, so the rest may be anything."""
    if raw.startswith(b"From "):
        raw = raw.partition(b"\n")[2]
    raw = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    fields = [f"Subject: {subject}", f"X-Pm-Internal-Id: {chance.getrandbits(256):064x}=="]
    # A newsletter program gives many mails one Message-ID; some mails have none.
    shared = chance.random() < 0.05
    if chance.random() < 0.95:
        fields.append(f"Message-ID: <{'weekly' if shared else number}@shop.example.org>")
    return "\r\n".join(fields).encode() + b"\r\n" + raw


def _made(chance: random.Random) -> bytes:
    shape = chance.choice(_SHAPES)
    return shape(chance)


def _text(chance: random.Random, words: int = 80) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(chance.randrange(1, words))) + "\n"


def _envelope(chance: random.Random) -> EmailMessage:
    mail = EmailMessage(policy=SMTP)
    mail["From"] = f"Ada Löwe <ada{chance.randrange(50)}@example.org>"
    mail["To"] = USER
    mail["Date"] = "Tue, 06 Jan 2026 09:00:00 +0100"
    return mail


def _plain(chance: random.Random) -> bytes:
    mail = _envelope(chance)
    mail.set_content(_text(chance), cte=chance.choice(["quoted-printable", "base64", "8bit"]))
    return mail.as_bytes()


def _alternative(chance: random.Random) -> bytes:
    mail = _envelope(chance)
    mail.set_content(_text(chance))
    style = "<style>p { color: red }</style>" * chance.randrange(1, 200)
    mail.add_alternative(f"<html><head>{style}</head><p>{_text(chance)}</p></html>", subtype="html")
    return mail.as_bytes()


def _attached(chance: random.Random) -> bytes:
    mail = _envelope(chance)
    mail.set_content(_text(chance))
    for number in range(chance.randrange(1, 5)):
        content = chance.randbytes(chance.randrange(10, 30_000))
        name = chance.choice([f"Rät {number}.pdf", "../../etc/passwd", f"{'long ' * 60}.png"])
        mail.add_attachment(content, maintype="application", subtype="pdf", filename=name)
    return mail.as_bytes()


def _forwarded(chance: random.Random) -> bytes:
    mail = _envelope(chance)
    mail.set_content("> quoted\n\nOn Tuesday Ada wrote:\n> more\n")
    inner = _envelope(chance)
    inner.set_content(_text(chance))
    mail.add_attachment(inner)
    return mail.as_bytes()


def _bounce(chance: random.Random) -> bytes:
    return (
        b"From: MAILER-DAEMON@example.net\r\nTo: me@proton.me\r\nAuto-Submitted: auto-replied\r\n"
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain\r\n\r\nNot delivered.\r\n"
        b"--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.net\r\n\r\n"
        b"Final-Recipient: rfc822; bob@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b--\r\n"
    )


def _list(chance: random.Random) -> bytes:
    return b"List-Id: <news.example.org>\r\nPrecedence: bulk\r\n" + _alternative(chance)


def _broken(chance: random.Random) -> bytes:
    return chance.choice(
        [
            b"From: \xff\xfe <broken\r\nTo: me@proton.me\r\nDate: yesterday, perhaps\r\n"
            b"Content-Type: text/plain; charset=no-such-charset\r\n\r\n\x81\x8d\x00 caf\xe9\r\n",
            b"From: a@example.org\r\nTo: " + b"u@example.org, " * 400 + b"me@proton.me\r\n"
            b"Content-Type: multipart/mixed; boundary=never\r\n\r\nno part at all\r\n",
            b"From: a@example.org\r\nContent-Transfer-Encoding: base64\r\n\r\n=!=not base64\r\n",
            b"From: a@example.org\r\nContent-Type: text/html\r\n\r\n<p><b>open" + b"<div>" * 500,
            b"From: a@example.org\r\nReferences: " + b"<r@example.org> " * 300 + b"\r\n\r\n\r\n",
        ]
    )


_SHAPES = (_plain, _plain, _alternative, _attached, _forwarded, _bounce, _list, _broken)
