"""What reading a mailbox needs of a connection: the seam between the connector and IMAP."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Any, NamedTuple, Protocol


class Examined(NamedTuple):
    """A folder as EXAMINE shows it; ``uidnext`` is above every UID in it."""

    uidvalidity: int
    uidnext: int
    messages: int


class Listed(NamedTuple):
    """A folder of LIST: its name and its lower-case attributes, such as ``\\sent``."""

    name: str
    attributes: frozenset[str]
    selectable: bool


class Seen(NamedTuple):
    """A message as a scan shows it: what the server knows without opening it.

    ``arrived``: epoch s; None if the server's INTERNALDATE is none.
    """

    uid: int
    arrived: int | None
    size: int


@dataclass(frozen=True, slots=True)
class Head:
    """A message's flags and the asked header fields, raw."""

    uid: int
    arrived: datetime | None
    size: int
    flags: frozenset[str]
    header: bytes


class Section(NamedTuple):
    """A part to read: its section number, and at most how many bytes of it."""

    uid: int
    section: str
    most_bytes: int


class Session(Protocol):
    """One connection, used by one thread, that has logged in.

    Every call may raise ``BridgeDownError`` (the connection is gone) or ``BridgeRefusedError`` (the
    server said NO or BAD to this command; the connection goes on). None changes the mailbox.
    """

    def folders(self) -> list[Listed]:
        """Every folder."""

    def examine(self, folder: str) -> Examined:
        """Open a folder for reading; ``FolderGoneError`` if there is none."""

    def scan(self, first: int, last: int | None) -> Iterator[Seen]:
        """What is there from UID ``first`` to ``last`` (None: to the end), in no order."""

    def identifiers(self, uids: Sequence[int], then: Sequence[int] = ()) -> dict[int, bytes]:
        """X-Pm-Internal-Id and Message-ID by UID, raw; without those that are gone.

        ``then``: what will be asked for next, so that the server can work on it meanwhile.
        """

    def heads(self, uids: Sequence[int]) -> dict[int, Head]:
        """Flags and header fields by UID; without those that are gone."""

    def structures(self, uids: Sequence[int]) -> dict[int, Any]:
        """BODYSTRUCTURE by UID as nested lists; without those that are gone."""

    def part(self, wanted: Section) -> bytes:
        """The beginning of a part as it is encoded; empty if it is gone."""

    def changed(self) -> bool:
        """Whether something arrived since it was last asked, without waiting."""

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait until something may have arrived (True), it is time to look anyway, or ``stop`` is set.

        ``seconds`` is how long to wait where the server does not tell by itself (IDLE).
        """

    def close(self) -> None:
        """End the connection; never raises, and may be called from another thread."""
