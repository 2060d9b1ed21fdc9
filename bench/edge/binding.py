"""After UIDVALIDITY changed: finding out which mail each UID is, beside what others need for as much.

Ours is the whole of one look at the folder: listing it, asking for what tells one mail from another, and
writing every place into the ledger, each batch in a transaction that survives a power cut.

imapclient's fetch-and-parse is what research/edge.md measured: everything that a server keeps of a mail
(ENVELOPE, BODYSTRUCTURE, FLAGS, INTERNALDATE, RFC822.SIZE), which is how a client usually learns what is in a
folder. Whole headers, parsed by ``email``, are shown beside it. Neither writes anything down.

mbsync cannot bind mail again under a new UIDVALIDITY. It pulls, so its pull is what is compared.
"""

import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from email.parser import BytesHeaderParser
from pathlib import Path

from fleetprompt_edge.ingest.reader import Watched
from fleetprompt_edge.store import Store
from rich.console import Console

from bench.edge.mailbox import MAILS
from bench.report import Ratio
from tests.edge.dovecot import PASSWORD, USER, Dovecot
from tests.edge.ingesting import Desk

TIMES_IMAPCLIENT = 4.0
ROUNDS = 3
_INBOX = Watched("INBOX")
_AT_ONCE = 500
_MBSYNC = """
IMAPAccount bridge
Host 127.0.0.1
Port {port}
User {user}
Pass {password}
SSLType IMAPS
CertificateFile {certificate}

IMAPStore far
Account bridge

MaildirStore near
Inbox {folder}/near
Path {folder}/

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState *
"""


def measure(console: Console, server: Dovecot) -> list[Ratio]:
    """The ratios that have a target."""
    ours = _ours(console, server)
    metadata, headers = _metadata(server), _headers(server)
    console.print(f"imapclient, metadata: {metadata:,.0f} mails/s")
    console.print(f"imapclient, whole headers and email.parser: {headers:,.0f} mails/s")
    name = "imapclient fetches and parses"
    ratios = [Ratio("re-binding identities", ours, name, metadata, "/s", TIMES_IMAPCLIENT)]
    pulled = _mbsync(console, server)
    if pulled is not None:
        ratios.append(Ratio("re-binding identities", ours, "mbsync pulls", pulled, "/s", 1.0))
    return ratios


def _ours(console: Console, server: Dovecot) -> float:
    """Mails a second, the median of the rounds; each round has a new UIDVALIDITY."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        desk = Desk(store)
        session = server.session(desk.headers)
        examined = session.examine("INBOX")
        with store.transaction():
            # Every mail counts as one that came after the connector: all of them are to be known.
            store.ledger.add_folder("INBOX", examined.uidvalidity, examined.uidnext - 1, 0)
        rates = [_timed(desk, server) for _ in range(ROUNDS + 1)][1:]
        session.close()
        with store.transaction():
            assert store.ledger.counts() == {"known": MAILS}
        assert desk.queued() == []
    console.print("re-binding: " + ", ".join(f"{rate:,.0f}" for rate in rates) + " mails/s")
    return sorted(rates)[ROUNDS // 2]


def _timed(desk: Desk, server: Dovecot) -> float:
    session = server.session(desk.headers)
    began = time.perf_counter()
    desk.look(session, replace(_INBOX))
    rate = MAILS / (time.perf_counter() - began)
    session.close()
    server.renumber()
    return rate


def _metadata(server: Dovecot) -> float:
    asked = ["ENVELOPE", "BODYSTRUCTURE", "FLAGS", "INTERNALDATE", "RFC822.SIZE"]
    rates = []
    for _ in range(ROUNDS):
        with server.client() as client:
            client.select_folder("INBOX", readonly=True)
            uids = client.search()
            began = time.perf_counter()
            found = 0
            for at in range(0, len(uids), _AT_ONCE):
                for items in client.fetch(uids[at : at + _AT_ONCE], asked).values():
                    found += items[b"ENVELOPE"].message_id is not None
            rates.append(found / (time.perf_counter() - began))
    return sorted(rates)[ROUNDS // 2]


def _headers(server: Dovecot) -> float:
    asked = ["BODY.PEEK[HEADER]", "INTERNALDATE", "RFC822.SIZE"]
    rates = []
    parser = BytesHeaderParser()
    for _ in range(ROUNDS):
        with server.client() as client:
            client.select_folder("INBOX", readonly=True)
            uids = client.search()
            began = time.perf_counter()
            found = 0
            for at in range(0, len(uids), _AT_ONCE):
                for items in client.fetch(uids[at : at + _AT_ONCE], asked).values():
                    found += parser.parsebytes(items[b"BODY[HEADER]"])["Message-ID"] is not None
            rates.append(found / (time.perf_counter() - began))
    return sorted(rates)[ROUNDS // 2]


def _mbsync(console: Console, server: Dovecot) -> float | None:
    """Mails a second of one full pull; None where mbsync is not installed."""
    program = shutil.which("mbsync")
    if program is None:
        console.print("mbsync: not installed (Debian: apt-get install isync)")
        return None
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "mbsyncrc"
        settings.write_text(
            _MBSYNC.format(
                port=server.tls_port,
                user=USER,
                password=PASSWORD,
                certificate=server.base / "cert.pem",
                folder=folder,
            )
        )
        settings.chmod(0o600)
        began = time.perf_counter()
        subprocess.run([program, "-c", settings, "-q", "all"], check=True, timeout=600)
        seconds = time.perf_counter() - began
        pulled = sum(len(list((Path(folder) / "near" / one).iterdir())) for one in ("new", "cur"))
        assert pulled == MAILS, f"mbsync pulled {pulled}"
    console.print(f"mbsync: {MAILS / seconds:,.0f} mails/s")
    return MAILS / seconds
