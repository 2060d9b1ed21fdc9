"""A session with Bridge by imapclient.

What imapclient and imaplib do unasked is undone here (research/edge.md §4): no time limits, EOF that
IDLE swallows, range strings that fail, debug logs that hold mail.
"""

import imaplib
import logging
import socket
import time
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any, TypeVar

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import LoginError

from fleetprompt_edge.errors import (
    BridgeDownError,
    BridgeLoginError,
    BridgeRefusedError,
    FolderGoneError,
)
from fleetprompt_edge.imap.failures import hang_up, telling, telling_of_tls
from fleetprompt_edge.imap.responses import (
    UnreadableResponseError,
    header_fields,
    header_of,
    internal_date,
    messages,
    number,
    places,
)
from fleetprompt_edge.imap.session import Examined, Head, Listed, Section, Seen
from fleetprompt_edge.imap.tls import bridge_context, check_pin
from fleetprompt_edge.imap.wire import Piece, Wire
from fleetprompt_edge.mail.identity import IDENTIFIERS
from fleetprompt_edge.profile import Imap

# At DEBUG imapclient logs every line, with subjects and texts in it.
logging.getLogger("imapclient").setLevel(logging.WARNING)
logging.getLogger("imapclient.imaplib").setLevel(logging.WARNING)

HEADER_LIMIT = 65_536  # bytes of the asked header fields of one message
_IDENTIFIERS = f"UID BODY.PEEK[HEADER.FIELDS ({' '.join(IDENTIFIERS)})]<0.{HEADER_LIMIT}>"
_CONNECT_SECONDS = 10.0
_SLICE_SECONDS = 1.0  # how long a wait goes without looking at whether to stop
_TOO_SOON = 0.2  # seconds; an empty answer from IDLE before then is the end of the connection
T = TypeVar("T")


class BridgeSession:
    """A ``Session`` on Bridge's IMAP server, or any other that speaks IMAP4rev1.

    ``read_seconds``: how long an answer may take. ``idle_seconds``: how long IDLE goes on before it is
    renewed, which is also when a dead connection is noticed; 0 means that IDLE is not used.
    """

    def __init__(
        self,
        options: Imap,
        pin: str | None,
        header_fields: Sequence[str],
        *,
        read_seconds: float = 60.0,
        idle_seconds: float = 300.0,
    ) -> None:
        self._fields = " ".join(header_fields)
        self._idle_seconds = idle_seconds
        self._exists = 0
        context = bridge_context(pin)
        with telling_of_tls(options):
            implicit = options.tls == "implicit"
            client = IMAPClient(
                options.host,
                options.port,
                ssl=implicit,
                ssl_context=context if implicit else None,
                timeout=SocketTimeout(_CONNECT_SECONDS, read_seconds),
            )
            try:
                if not implicit:
                    client.starttls(context)
                check_pin(client.socket(), pin)
            except BaseException:
                hang_up(client)
                raise
        client.socket().setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._client = client
        self._wire = Wire(client._imap)
        self._early: dict[int, bytes] = {}

    def login(self, username: str, password: str) -> None:
        """Log in; ``BridgeLoginError`` if Bridge refuses, or would: it makes passwords of ASCII alone."""
        if not (username + password).isascii():
            raise _refused()
        try:
            with telling():
                self._client.login(username, password)
                # Bridge can switch IDLE off from afar: what it offers is read anew at each login.
                self._offers_idle = b"IDLE" in self._client.capabilities()
        except LoginError as error:
            if isinstance(error.__context__, imaplib.IMAP4.abort):
                raise BridgeDownError("Bridge closed the connection at the login.") from None
            raise _refused() from None

    @property
    def idles(self) -> bool:
        """Whether waiting is by IDLE; else it is by asking."""
        return self._offers_idle and self._idle_seconds > 0

    def folders(self) -> list[Listed]:
        """Every folder."""
        with telling():
            self._wire.settle()
            found = self._client.list_folders()
        return [
            Listed(
                name if isinstance(name, str) else name.decode("utf-8", "replace"),
                attributes := frozenset(one.decode("ascii", "replace").lower() for one in flags),
                not attributes & {"\\noselect", "\\nonexistent"},
            )
            for flags, _, name in found
        ]

    def examine(self, folder: str) -> Examined:
        """Open a folder for reading; ``FolderGoneError`` if there is none."""
        try:
            with telling():
                self._wire.settle()
                self._early.clear()
                found = self._client.select_folder(folder, readonly=True)
        except BridgeRefusedError:
            raise FolderGoneError(
                f"The folder {folder!r} is not there.",
                remedy="See the names with `fleetprompt-edge doctor`, then mend mailbox.folders.",
            ) from None
        self._exists = int(found.get(b"EXISTS", 0))
        uidvalidity = int(found.get(b"UIDVALIDITY", 0))
        uidnext = int(found.get(b"UIDNEXT", 0)) or self._highest_uid() + 1
        return Examined(uidvalidity, uidnext, self._exists)

    def _highest_uid(self) -> int:
        # RFC 3501 lets a server leave UIDNEXT out.
        return max((one.uid for one in self.scan(1, None)), default=0)

    def scan(self, first: int, last: int | None) -> Iterator[Seen]:
        """What is there from UID ``first`` to ``last`` (None: to the end), in no order."""
        asked = f"{first}:{'*' if last is None else last}"
        raw = self._ask(asked, "UID INTERNALDATE RFC822.SIZE")
        # `n:*` answers with the last message even if its UID is below n (RFC 3501 §6.4.8).
        return (
            Seen(uid, arrived, size)
            for uid, arrived, size in self._read(places(raw))
            if uid >= first and (last is None or uid <= last)
        )

    def identifiers(self, uids: Sequence[int], then: Sequence[int] = ()) -> dict[int, bytes]:
        """The header fields that tell one mail from another by UID; without those that are gone."""
        with telling():
            for some in (uids, then):
                if some:
                    self._wire.begin(_uid_set(some), _IDENTIFIERS)
        found = self._early | dict(
            self._read(header_fields(self._ask(_uid_set(uids), _IDENTIFIERS)))
        )
        # A server that works on both at once may answer to ``then`` already.
        asked = set(uids)
        self._early = {uid: found.pop(uid) for uid in list(found) if uid not in asked}
        return found

    def heads(self, uids: Sequence[int]) -> dict[int, Head]:
        """Flags and header fields by UID; without those that are gone."""
        asked = (
            "UID INTERNALDATE RFC822.SIZE FLAGS "
            f"BODY.PEEK[HEADER.FIELDS ({self._fields})]<0.{HEADER_LIMIT}>"
        )
        found: dict[int, Head] = {}
        for items in self._fetch(_uid_set(uids), asked):
            header = header_of(items)
            # An unsolicited FETCH of flags alone is no answer to this one.
            if b"INTERNALDATE" not in items or header is None:
                continue
            arrived = internal_date(items[b"INTERNALDATE"])
            uid = number(items.get(b"UID"))
            flags = frozenset(
                flag.decode("ascii", "replace").lower() for flag in items.get(b"FLAGS") or ()
            )
            found[uid] = Head(uid, arrived, number(items.get(b"RFC822.SIZE")), flags, header)
        return found

    def structures(self, uids: Sequence[int]) -> dict[int, Any]:
        """BODYSTRUCTURE by UID as nested lists; without those that are gone."""
        return {
            number(items.get(b"UID")): items[b"BODYSTRUCTURE"]
            for items in self._fetch(_uid_set(uids), "UID BODYSTRUCTURE")
            if b"BODYSTRUCTURE" in items
        }

    def part(self, wanted: Section) -> bytes:
        """The beginning of a part as it is encoded; empty if it is gone."""
        name = f"BODY[{wanted.section}]<0>".encode()
        asked = f"UID BODY.PEEK[{wanted.section}]<0.{wanted.most_bytes}>"
        for items in self._fetch(str(wanted.uid), asked):
            if number(items.get(b"UID")) == wanted.uid and name in items:
                return (items[name] or b"")[: wanted.most_bytes]
        return b""

    def changed(self) -> bool:
        """Whether something arrived since it was last asked, without waiting."""
        with telling():
            self._wire.settle()
            _, told = self._client.noop()
        return self._grew([one[0] for one in told if len(one) == 2 and one[1] == b"EXISTS"])

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait until something may have arrived (True), the time is over, or ``stop`` is set."""
        if not self.idles or not self._begin_idle():
            stop.wait(seconds)
            return False
        with telling():
            try:
                return self._grew([]) or self._idle(stop, self._idle_seconds)
            finally:
                self._client.idle_done()

    def _begin_idle(self) -> bool:
        """Start IDLE; False if the server refuses it after all, which it is not asked for again.

        Below imapclient, which takes a line that comes before the server's consent for a failure.
        """
        with telling():
            self._wire.settle()
            imap = self._client._imap
            tag = self._client._idle_tag = imap._command("IDLE")
            while imap._get_response() is not None:
                if imap.tagged_commands[tag]:
                    del imap.tagged_commands[tag]
                    self._offers_idle = False
                    return False
        return True

    def _idle(self, stop: Event, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            began = time.monotonic()
            slice_seconds = min(left, _SLICE_SECONDS)
            told = self._client.idle_check(timeout=slice_seconds)
            if not told and time.monotonic() - began < min(_TOO_SOON, slice_seconds / 2):
                # imapclient hides the end of the connection: an empty answer, at once, for ever.
                raise BridgeDownError("Bridge closed the connection.")
            if any(one[:1] == (b"BYE",) for one in told):
                raise BridgeDownError("Bridge ended the session.")
            if any(len(one) > 1 and one[1] in (b"EXISTS", b"EXPUNGE") for one in told):
                return True
        return False

    def close(self) -> None:
        """End the connection; never raises, and may be called from another thread."""
        hang_up(self._client)

    def _grew(self, counts: list[int]) -> bool:
        pending = self._client._imap.untagged_responses.pop("EXISTS", [])
        counts += [int(one) for one in pending if one and one.isdigit()]
        grew = any(count != self._exists for count in counts)
        if counts:
            self._exists = counts[-1]
        return grew

    def _fetch(self, uids: str, items: str) -> list[dict[bytes, Any]]:
        return self._read(messages(self._ask(uids, items)))

    def _ask(self, uids: str, items: str) -> list[Piece]:
        """One UID FETCH. Below imapclient, whose ``fetch`` takes no range and reads slowly."""
        with telling():
            return self._wire.fetch(uids, items)

    @staticmethod
    def _read(answers: Iterator[T]) -> list[T]:
        try:
            return list(answers)
        except UnreadableResponseError as error:
            raise BridgeRefusedError(f"Bridge's answer cannot be read: {error}.") from None


def _refused() -> BridgeLoginError:
    return BridgeLoginError(
        "Bridge refused the login.",
        remedy="Compare user name and password with those that Bridge shows for the account "
        "(not Proton's own password). Just after Bridge started this may pass by itself.",
    )


def _uid_set(uids: Sequence[int]) -> str:
    """UIDs in IMAP's short form, ``1:3,7``: a long list is refused by servers."""
    found: list[list[int]] = []
    for uid in sorted(uids):
        if found and uid == found[-1][1] + 1:
            found[-1][1] = uid
        else:
            found.append([uid, uid])
    return ",".join(f"{a}:{b}" if a != b else str(a) for a, b in found)
