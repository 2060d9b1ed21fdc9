"""Signals on their way to the platform, and those that it refused.

A signal leaves the queue only after the platform said that it has it, or refused it.
"""

import sqlite3
from typing import NamedTuple


class Queued(NamedTuple):
    """A signal on its way: its place, its key and its JSON text."""

    seq: int
    dedupe_key: str
    type: str
    body: str


class Backlog(NamedTuple):
    """How much waits, in signals and bytes, and since when (epoch s), if anything does."""

    signals: int
    bytes: int
    oldest: int | None
    dead_letters: int


class DeadLetter(NamedTuple):
    """A signal that the platform refused, and why."""

    seq: int
    dedupe_key: str
    type: str
    bytes: int
    refused_at: int
    problem: str
    detail: str


class Queue:
    """First in, first out, bounded by who fills it (``bytes_waiting``)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def put(self, dedupe_key: str, kind: str, body: str, enqueued_at: int) -> bool:
        """Append a signal; False if one with this key waits already or was refused."""
        if self._connection.execute(
            "SELECT 1 FROM dead_letters WHERE dedupe_key = ?", (dedupe_key,)
        ).fetchone():
            return False
        done = self._connection.execute(
            "INSERT INTO queue (dedupe_key, type, body, bytes, enqueued_at) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (dedupe_key) DO NOTHING",
            (dedupe_key, kind, body, len(body.encode()), enqueued_at),
        )
        return done.rowcount == 1

    def first(self, most: int, most_bytes: int) -> list[Queued]:
        """The oldest signals that fit together, always at least one if any waits."""
        found: list[Queued] = []
        left = most_bytes
        for seq, key, kind, body, size in self._connection.execute(
            "SELECT seq, dedupe_key, type, body, bytes FROM queue ORDER BY seq LIMIT ?", (most,)
        ):
            if found and size > left:
                break
            left -= size + 1
            found.append(Queued(seq, key, kind, body))
        return found

    def remove(self, seqs: list[int]) -> None:
        """Forget signals that the platform has."""
        self._connection.executemany("DELETE FROM queue WHERE seq = ?", [(one,) for one in seqs])

    def replace(self, seq: int, body: str) -> None:
        """Give a waiting signal another text, under the same key."""
        self._connection.execute(
            "UPDATE queue SET body = ?, bytes = ? WHERE seq = ?", (body, len(body.encode()), seq)
        )

    def drop_type(self, kind: str) -> None:
        """Forget waiting signals of a type that a newer one of it replaces."""
        self._connection.execute("DELETE FROM queue WHERE type = ?", (kind,))

    def bury(self, seq: int, refused_at: int, problem: str, detail: str) -> None:
        """Put a refused signal aside."""
        self._connection.execute(
            "INSERT INTO dead_letters SELECT seq, dedupe_key, type, body, bytes, enqueued_at, ?, ?, ?"
            " FROM queue WHERE seq = ?",
            (refused_at, problem, detail[:500], seq),
        )
        self._connection.execute("DELETE FROM queue WHERE seq = ?", (seq,))

    def revive(self, seq: int | None = None) -> int:
        """Queue one dead letter again, or all; how many."""
        self._connection.execute(
            "INSERT INTO queue (dedupe_key, type, body, bytes, enqueued_at)"
            " SELECT dedupe_key, type, body, bytes, enqueued_at FROM dead_letters"
            " WHERE ?1 IS NULL OR seq = ?1 ORDER BY seq",
            (seq,),
        )
        return self.drop_dead(seq)

    def drop_dead(self, seq: int | None = None) -> int:
        """Forget one dead letter, or all; how many."""
        return self._connection.execute(
            "DELETE FROM dead_letters WHERE ?1 IS NULL OR seq = ?1", (seq,)
        ).rowcount

    def dead_letters(self) -> list[DeadLetter]:
        """What the platform refused, oldest first, without the texts."""
        return [
            DeadLetter(*row)
            for row in self._connection.execute(
                "SELECT seq, dedupe_key, type, bytes, refused_at, problem, detail"
                " FROM dead_letters ORDER BY seq"
            )
        ]

    def bytes_waiting(self) -> int:
        """Bytes of all that waits or was put aside: both count towards the bound."""
        row = self._connection.execute(
            "SELECT (SELECT coalesce(sum(bytes), 0) FROM queue)"
            " + (SELECT coalesce(sum(bytes), 0) FROM dead_letters)"
        ).fetchone()
        return int(row[0])

    def backlog(self) -> Backlog:
        """How much waits."""
        row = self._connection.execute(
            "SELECT count(*), coalesce(sum(bytes), 0), min(enqueued_at),"
            " (SELECT count(*) FROM dead_letters) FROM queue"
        ).fetchone()
        return Backlog(*row)
