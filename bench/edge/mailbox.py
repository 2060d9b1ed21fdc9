"""A mailbox to measure on: a real Dovecot that shows itself as Bridge does, with mail of real sizes in it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

from fleetprompt_edge.mail.identity import IDENTIFIERS

from tests.edge.dovecot import USER, Dovecot, dovecot

MAILS = 20_000
STORED = ["ENVELOPE", "BODYSTRUCTURE", "FLAGS", "INTERNALDATE", "RFC822.SIZE"]
KEPT = [*STORED, f"BODY.PEEK[HEADER.FIELDS ({' '.join(IDENTIFIERS)})]"]
_LINE = "The order of Tuesday has not arrived; the carrier says that nobody was at home.\r\n"


@contextmanager
def mailbox(mails: int = MAILS) -> Iterator[Dovecot]:
    """A server with so many mails in INBOX that it has opened once, as a server in use has."""
    with dovecot() as server:
        server.drop(_mails(mails))
        # It takes the mails into the folder and assigns UIDs.
        with server.client() as client:
            client.select_folder("INBOX")
        fill_cache(server)
        yield server


def fill_cache(server: Dovecot) -> None:
    """Let the server put into its cache all that anybody will ask for, as a server in use has it there.

    After another UIDVALIDITY it reads the whole folder anew, which takes longer than what is measured and
    would be put down to whoever comes first. Bridge keeps all of it in a database of its own.
    """
    with server.client() as client:
        client.select_folder("INBOX", readonly=True)
        found, told = client._imap.uid("FETCH", "1:*", f"({' '.join(KEPT)})")
    assert found == "OK"
    assert len(told) >= MAILS


def _mails(count: int) -> Iterator[bytes]:
    """Most of a few kilobytes, some of tens, with the headers that travelled mail has."""
    chance = random.Random(5)
    for number in range(count):
        sender = f"Ada {number % 97} <ada{number % 97}@example.org>"
        hops = "".join(
            f"Received: from mx{hop}.example.org by mail.example.net with ESMTPS"
            f" id {chance.getrandbits(64):x};\r\n\tTue, 06 Jan 2026 09:00:0{hop} +0100\r\n"
            for hop in range(3)
        )
        lines = 1 + int(min(60_000.0, chance.lognormvariate(8.0, 1.0))) // len(_LINE)
        yield (
            f"Return-Path: <ada{number % 97}@example.org>\r\n{hops}"
            f"From: {sender}\r\nTo: {USER}\r\nSubject: Order {number} and what became of it\r\n"
            f"Date: Tue, 06 Jan 2026 09:00:00 +0100\r\n"
            f"Message-ID: <order-{number}.{chance.getrandbits(64):x}@example.org>\r\n"
            f"X-Pm-Internal-Id: {chance.getrandbits(512):0128x}==\r\n"
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + _LINE * lines
        ).encode()
