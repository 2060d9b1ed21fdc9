"""After UIDVALIDITY changed: finding out which mail each UID is, beside what others need for as much.

Ours is the whole of one look at the folder: opening and listing it, asking for what tells one mail from
another, and writing every place into the ledger, each batch in a transaction that survives a power cut.

imapclient's fetch-and-parse is what research/edge.md measured: everything that a server keeps of a mail
(ENVELOPE, BODYSTRUCTURE, FLAGS, INTERNALDATE, RFC822.SIZE), which is how a client usually learns what is in a
folder. Whole headers, parsed by ``email``, are shown beside it. Neither writes anything down, and the folder
is open and the UIDs are known before their time begins.

Each finds the server in the same state, its cache filled: else the first of a round pays for the others, as
Dovecot reads every mail anew after another UIDVALIDITY. What it does then is shown by itself.

mbsync cannot bind mail again under a new UIDVALIDITY. It pulls, so its pull is what is compared.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from email.parser import BytesHeaderParser
from pathlib import Path
from statistics import median
from typing import Any

from fleetprompt_edge.store import Store
from rich.console import Console

from bench.edge.mailbox import MAILS, STORED, fill_cache
from bench.report import Ratio
from tests.edge.dovecot import PASSWORD, USER, Dovecot
from tests.edge.ingesting import Desk

TIMES_IMAPCLIENT = 4.0
ROUNDS = 3
_AT_ONCE = 500
_SERVER = "the server by itself, after another UIDVALIDITY"
_OURS = "re-binding identities"
_METADATA = "imapclient, metadata"
_HEADERS = "imapclient, whole headers, email.parser"
_WHOLE = ["BODY.PEEK[HEADER]", "INTERNALDATE", "RFC822.SIZE"]
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
    """The ratios that have a target: medians of rounds in which each has its turn."""
    rates: dict[str, list[float]] = {_SERVER: [], _OURS: [], _METADATA: [], _HEADERS: []}
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        desk = Desk(store)
        _begin(desk, server)
        for _ in range(ROUNDS):
            server.renumber()
            rates[_SERVER].append(_rate(lambda: fill_cache(server)))
            rates[_OURS].append(_looked(desk, server))
            rates[_METADATA].append(_fetched(server, STORED, _has_envelope))
            rates[_HEADERS].append(_fetched(server, _WHOLE, _has_message_id))
        with store.transaction():
            assert store.ledger.counts() == {"known": MAILS}
        assert desk.queued() == []
    for name, found in rates.items():
        console.print(f"{name}: " + ", ".join(f"{rate:,.0f}" for rate in found) + " mails/s")
    ours = median(rates[_OURS])
    ratios = [Ratio(_OURS, ours, _METADATA, median(rates[_METADATA]), "/s", TIMES_IMAPCLIENT)]
    pulled = _mbsync(console, server)
    if pulled is not None:
        ratios.append(Ratio(_OURS, ours, "mbsync pulls", pulled, "/s", 1.0))
    return ratios


def _begin(desk: Desk, server: Dovecot) -> None:
    """Know every mail, as if all of them had come after the connector."""
    session = server.session(desk.headers)
    examined = session.examine("INBOX")
    session.close()
    with desk.store.transaction():
        desk.store.ledger.add_folder("INBOX", examined.uidvalidity, examined.uidnext - 1, 0)
    _looked(desk, server)


def _looked(desk: Desk, server: Dovecot) -> float:
    """Mails a second of one look at the folder."""
    session = server.session(desk.headers)
    rate = _rate(lambda: desk.look(session))
    session.close()
    return rate


def _rate(work: Callable[[], object]) -> float:
    """Mails a second of something done once for all of them."""
    began = time.perf_counter()
    work()
    return MAILS / (time.perf_counter() - began)


def _fetched(server: Dovecot, asked: list[str], has: Callable[[dict[bytes, Any]], bool]) -> float:
    """Mails a second that imapclient fetches and parses; ``has`` looks at what was asked for."""
    with server.client() as client:
        client.select_folder("INBOX", readonly=True)
        uids = client.search()
        began = time.perf_counter()
        found = 0
        for at in range(0, len(uids), _AT_ONCE):
            found += sum(map(has, client.fetch(uids[at : at + _AT_ONCE], asked).values()))
        seconds = time.perf_counter() - began
    assert found == MAILS
    return MAILS / seconds


def _has_envelope(items: dict[bytes, Any]) -> bool:
    return items[b"ENVELOPE"].message_id is not None


def _has_message_id(items: dict[bytes, Any]) -> bool:
    return BytesHeaderParser().parsebytes(items[b"BODY[HEADER]"])["Message-ID"] is not None


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
