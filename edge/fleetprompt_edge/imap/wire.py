"""UID FETCH below imaplib, which joins, formats and notes every line for a log that nobody reads.

Only what follows FETCH is read here. What a server tells in between (EXISTS, EXPUNGE) is left where imaplib
would have left it, and literals are taken by their length, whatever is in them.
"""

import imaplib
import re

Piece = bytes | tuple[bytes, bytes]
"""A line, or a line with the literal that it announces. A plain line ends a response."""

LONGEST = 1_048_576  # bytes of a line or a literal; nothing that is asked for comes near it
_LITERAL = re.compile(rb"\{(\d{1,10})\+?\}\r\n$")
_FETCHED = re.compile(rb"\* \d+ FETCH ", re.IGNORECASE)
_COUNTED = re.compile(rb"\* (\d+) (EXISTS|EXPUNGE)\r\n", re.IGNORECASE)


def fetch(imap: imaplib.IMAP4, uids: str, items: str) -> list[Piece]:
    """Every answer to one UID FETCH, as ``responses`` reads them.

    ``imaplib.IMAP4.error`` for NO and BAD, after all of the answer was read; ``IMAP4.abort`` where the
    connection ended or what came cannot be followed any more.
    """
    tag: bytes = imap._new_tag()
    imap.send(b"%b UID FETCH %b (%b)\r\n" % (tag, uids.encode(), items.encode()))
    found: list[Piece] = []
    while True:
        line = _line(imap)
        if line.startswith(b"* "):
            fetched = _FETCHED.match(line)
            if fetched is None:
                _aside(imap, line)
            while line.endswith(b"}\r\n") and (announced := _LITERAL.search(line)):
                literal = _literal(imap, int(announced[1]))
                if fetched:
                    found.append((line[:-2], literal))
                line = _line(imap)
            if fetched:
                found.append(line[:-2])
        elif line.startswith(tag + b" "):
            if line[len(tag) :].upper().startswith(b" OK"):
                return found
            raise imaplib.IMAP4.error("FETCH was refused")
        # What is left behind by a command that was given up earlier answers nobody's question.


def _literal(imap: imaplib.IMAP4, size: int) -> bytes:
    if size > LONGEST:
        raise imaplib.IMAP4.abort("a literal is longer than anything that was asked for")
    literal: bytes = imap.read(size)
    if len(literal) < size:
        raise imaplib.IMAP4.abort("the connection ended in a literal")
    return literal


def _line(imap: imaplib.IMAP4) -> bytes:
    # imaplib itself refuses a line above its limit.
    line: bytes = imap.readline()
    if not line.endswith(b"\r\n"):
        raise imaplib.IMAP4.abort("the connection ended in a line")
    return line


def _aside(imap: imaplib.IMAP4, line: bytes) -> None:
    if counted := _COUNTED.fullmatch(line):
        imap._append_untagged(counted[2].decode().upper(), counted[1])
    elif line[:6].upper() == b"* BYE ":
        raise imaplib.IMAP4.abort("the server says goodbye")
