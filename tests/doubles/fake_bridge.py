"""A stand-in for Proton Mail Bridge's IMAP server, for what no other server will do.

It does what gluon does (research/edge.md §2.2 to §2.6): answers FETCH in any order, refuses a whole command
for one message, says ``NO no such user`` to every failed login, numbers the newest mail first, and hangs
up when it likes. Every command that arrives is noted.
"""

import random
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

_COMMAND = re.compile(rb"(?:(\S+) )?(UID )?(\S+) ?(.*)", re.DOTALL)
_FIELDS = re.compile(rb"BODY\.PEEK\[HEADER\.FIELDS \(([^)]*)\)\]<0\.(\d+)>")
_FIELD = re.compile(rb"([^:\r\n]+):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")
_PART = re.compile(rb"BODY\.PEEK\[([\d.]+)\]<0\.(\d+)>")


@dataclass
class Message:
    """A message: ``header`` and ``text`` raw. ``refused``: NO to any command that wants its content.
    ``vanished``: BAD to any command that names it. ``cuts``: the connection ends in its literal."""

    header: bytes
    text: bytes
    arrived: datetime
    flags: bytes = b""
    size: int | None = None
    structure: bytes = b'("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 9 1 NIL NIL NIL NIL)'
    refused: bool = False
    vanished: bool = False
    cuts: bool = False


@dataclass
class FakeBridge:
    """A running server. ``certificate`` is a folder with ``cert.pem`` and ``key.pem``."""

    certificate: Path
    user: str
    password: str
    messages: dict[int, Message] = field(default_factory=dict)
    uidvalidity: int = 1
    loading: bool = False
    bye: bool = False
    idle: bytes = b""
    interject: Callable[[], bytes] | None = None
    commands: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._idle_tag = b""
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def logins(self) -> int:
        """How many logins were tried."""
        return sum(one.startswith(b"LOGIN") for one in self.commands)

    def stop(self) -> None:
        """End every connection and the server."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        self._open.append(connection)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate / "cert.pem", self.certificate / "key.pem")
        with suppress(OSError, ConnectionError):
            connection.sendall(b"* OK [CAPABILITY IMAP4rev1 STARTTLS] gluon session ready\r\n")
            for line in _lines(connection):
                tag, command = line.split(b" ", 1)
                self.commands.append(command)
                if command.upper() == b"STARTTLS":
                    connection.sendall(tag + b" OK begin TLS\r\n")
                    with context.wrap_socket(connection, server_side=True) as secure:
                        self._open.append(secure)
                        for inner in _lines(secure):
                            self._answer(secure, inner)
                    return
                connection.sendall(
                    b"* CAPABILITY IMAP4rev1 IDLE STARTTLS\r\n" + tag + b" OK done\r\n"
                )
        connection.close()

    def _answer(self, connection: ssl.SSLSocket, line: bytes) -> None:
        found = _COMMAND.fullmatch(line)
        assert found, line
        tag, _, name, rest = found.groups()
        self.commands.append(name.upper() + b" " + rest)
        if name.upper() == b"DONE":
            tag = self._idle_tag
        work = {
            b"CAPABILITY": self._capability,
            b"LOGIN": self._login,
            b"LIST": self._list,
            b"EXAMINE": self._examine,
            b"FETCH": self._fetch,
            b"IDLE": self._idle,
        }.get(name.upper())
        if self.bye and name.upper() != b"LOGIN":
            connection.sendall(b"* BYE mailbox is in an inconsistent state\r\n")
            raise ConnectionError
        if work is None:
            connection.sendall(tag + b" OK done\r\n")
            return
        told, verdict = work(rest)
        if verdict is None:
            connection.sendall(told)
            raise ConnectionError
        if verdict == b"+":
            connection.sendall(told + b"+ idling\r\n")
            self._idle_tag = tag
            return
        connection.sendall(told + tag + b" " + verdict + b"\r\n")

    def _capability(self, _: bytes) -> tuple[bytes, bytes | None]:
        return b"* CAPABILITY IMAP4rev1 IDLE UNSELECT UIDPLUS MOVE ID\r\n", b"OK done"

    def _login(self, rest: bytes) -> tuple[bytes, bytes | None]:
        given = [one.strip(b'"') for one in rest.split(b" ")]
        if self.loading or given != [self.user.encode(), self.password.encode()]:
            return b"", b"NO no such user"
        return b"", b"OK logged in"

    def _list(self, _: bytes) -> tuple[bytes, bytes | None]:
        return b'* LIST (\\Noinferiors) "/" "INBOX"\r\n* LIST (\\Sent) "/" "Sent"\r\n', b"OK done"

    def _idle(self, _: bytes) -> tuple[bytes, bytes | None]:
        """``idle``: empty to take part; what begins with ``*`` comes before the consent; else a refusal."""
        if self.idle.startswith(b"*") or not self.idle:
            return self.idle, b"+"
        return b"", self.idle

    def _examine(self, _: bytes) -> tuple[bytes, bytes | None]:
        uidnext = max(self.messages, default=0) + 1
        return (
            b"* FLAGS (\\Seen \\Flagged \\Deleted)\r\n"
            b"* %d EXISTS\r\n* 0 RECENT\r\n* OK [UIDNEXT %d] next\r\n* OK [UIDVALIDITY %d] valid\r\n"
            % (len(self.messages), uidnext, self.uidvalidity)
        ), b"OK [READ-ONLY] examined"

    def _fetch(self, rest: bytes) -> tuple[bytes, bytes | None]:
        wanted, items = rest.split(b" ", 1)
        uids = [uid for uid in self.messages if _contains(wanted, uid)]
        content = b"BODY" in items
        if any(self.messages[uid].vanished for uid in uids):
            return b"", b"BAD no such message"
        if content and any(self.messages[uid].refused for uid in uids):
            return b"", b"NO failed to load literal"
        order = sorted(self.messages)
        self.chance.shuffle(uids)
        told = b""
        for uid in uids:
            told += self._one(order.index(uid) + 1, uid, items)
            if content and self.messages[uid].cuts:
                return told[: -len(told) // 4], None
            if self.interject is not None:
                told += self.interject()
        return told, b"OK fetched"

    def _one(self, number: int, uid: int, items: bytes) -> bytes:
        mail = self.messages[uid]
        found = [b"UID %d" % uid]
        if b"INTERNALDATE" in items:
            at = mail.arrived.astimezone(UTC).strftime("%d-%b-%Y %H:%M:%S +0000").encode()
            found.append(b'INTERNALDATE "' + at + b'"')
        if b"RFC822.SIZE" in items:
            size = len(mail.header) + len(mail.text) if mail.size is None else mail.size
            found.append(b"RFC822.SIZE %d" % size)
        if b"FLAGS" in items:
            found.append(b"FLAGS (" + mail.flags + b")")
        if b"BODYSTRUCTURE" in items:
            found.append(b"BODYSTRUCTURE " + mail.structure)
        if fields := _FIELDS.search(items):
            names = {one.lower() for one in fields[1].split()}
            kept = b"".join(
                one[0] for one in _FIELD.finditer(mail.header) if one[1].lower() in names
            )
            found.append(
                _literal(b"BODY[HEADER.FIELDS (" + fields[1] + b")]<0>", kept[: int(fields[2])])
            )
        if part := _PART.search(items):
            found.append(_literal(b"BODY[" + part[1] + b"]<0>", mail.text[: int(part[2])]))
        return b"* %d FETCH (" % number + b" ".join(found) + b")\r\n"


@contextmanager
def fake_bridge(certificate: Path, user: str, password: str) -> Iterator[FakeBridge]:
    """A server until the block ends."""
    made = FakeBridge(certificate, user, password)
    try:
        yield made
    finally:
        made.stop()


def _lines(connection: socket.socket) -> Iterator[bytes]:
    waiting = b""
    while data := connection.recv(65536):
        waiting += data
        while b"\r\n" in waiting:
            line, _, waiting = waiting.partition(b"\r\n")
            yield line


def _literal(name: bytes, content: bytes) -> bytes:
    return name + b" {%d}\r\n" % len(content) + content


def _contains(wanted: bytes, uid: int) -> bool:
    for one in wanted.split(b","):
        first, _, last = one.partition(b":")
        if int(first) <= uid and (last == b"*" or uid <= int(last or first)):
            return True
    return False
