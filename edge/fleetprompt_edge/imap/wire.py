"""UID FETCH below imaplib, which joins, formats and notes every line for a log that nobody reads.

Only what follows FETCH is read here. What a server tells in between (EXISTS, EXPUNGE) is left where imaplib
would have left it, and literals are taken by their length, whatever is in them.
"""

import imaplib
import re
from dataclasses import dataclass, field

Piece = bytes | tuple[bytes, bytes]
"""A line, or a line with the literal that it announces. A plain line ends a response."""

LONGEST = 1_048_576  # bytes of a line or a literal; nothing that is asked for comes near it
_LITERAL = re.compile(rb"\{(\d{1,10})\+?\}\r\n$")
_FETCHED = re.compile(rb"\* \d+ FETCH ", re.IGNORECASE)
_COUNTED = re.compile(rb"\* (\d+) (EXISTS|EXPUNGE)\r\n", re.IGNORECASE)


@dataclass(slots=True)
class _Asked:
    """A command that was sent. ``granted`` is None until the server has answered all of it."""

    tag: bytes
    pieces: list[Piece] = field(default_factory=list)
    granted: bool | None = None


class Wire:
    """The FETCH commands of one connection, of which the next may be sent before the last is answered.

    gluon and Dovecot work on one after another. A server may mix the answers to commands that do not disturb
    each other (RFC 3501 §5.5): then those to one may be found with another's, and nothing is lost of them.
    ``settle`` before imaplib or imapclient use the connection, which know nothing of answers still to come.
    """

    def __init__(self, imap: imaplib.IMAP4) -> None:
        self._imap = imap
        self._asked: dict[tuple[str, str], _Asked] = {}

    def begin(self, uids: str, items: str) -> None:
        """Let the server work on what ``fetch`` will be asked for."""
        if (uids, items) not in self._asked:
            tag: bytes = self._imap._new_tag()
            self._imap.send(b"%b UID FETCH %b (%b)\r\n" % (tag, uids.encode(), items.encode()))
            self._asked[uids, items] = _Asked(tag)

    def fetch(self, uids: str, items: str) -> list[Piece]:
        """Every answer to one UID FETCH, as ``responses`` reads them.

        ``imaplib.IMAP4.error`` for NO and BAD, after all of the answer was read; ``IMAP4.abort`` where the
        connection ended or what came cannot be followed any more.
        """
        if (uids, items) not in self._asked:
            self._read_until_answered(*self._asked.values())
            self.begin(uids, items)
        wanted = self._asked[uids, items]
        self._read_until_answered(wanted)
        del self._asked[uids, items]
        if not wanted.granted:
            raise imaplib.IMAP4.error("FETCH was refused")
        return wanted.pieces

    def settle(self) -> None:
        """Take the answers to what was begun and is not wanted any more."""
        self._read_until_answered(*self._asked.values())
        self._asked.clear()

    def _read_until_answered(self, *wanted: _Asked) -> None:
        while any(one.granted is None for one in wanted):
            # Answers belong to the oldest command that is not done.
            now = next(one for one in self._asked.values() if one.granted is None)
            tag, _, verdict = self._read_answers(now.pieces).partition(b" ")
            # What is left behind by a command that was given up earlier answers nobody's question.
            for one in self._asked.values():
                if one.tag == tag:
                    one.granted = verdict[:3].upper() == b"OK "

    def _read_answers(self, found: list[Piece]) -> bytes:
        """Add what FETCH answered, up to the next line that ends a command; that line."""
        while (line := self._line()).startswith(b"* "):
            fetched = _FETCHED.match(line)
            if fetched is None:
                self._aside(line)
            while line.endswith(b"}\r\n") and (announced := _LITERAL.search(line)):
                literal = self._literal(int(announced[1]))
                if fetched:
                    found.append((line[:-2], literal))
                line = self._line()
            if fetched:
                found.append(line[:-2])
        return line

    def _literal(self, size: int) -> bytes:
        if size > LONGEST:
            raise imaplib.IMAP4.abort("a literal is longer than anything that was asked for")
        literal: bytes = self._imap.read(size)
        if len(literal) < size:
            raise imaplib.IMAP4.abort("the connection ended in a literal")
        return literal

    def _line(self) -> bytes:
        # imaplib itself refuses a line above its limit.
        line: bytes = self._imap.readline()
        if not line.endswith(b"\r\n"):
            raise imaplib.IMAP4.abort("the connection ended in a line")
        return line

    def _aside(self, line: bytes) -> None:
        if counted := _COUNTED.fullmatch(line):
            self._imap._append_untagged(counted[2].decode().upper(), counted[1])
        elif line[:6].upper() == b"* BYE ":
            raise imaplib.IMAP4.abort("the server says goodbye")
