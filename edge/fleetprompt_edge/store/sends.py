"""What was asked to be sent, written down before the first byte goes out, and reports on their way."""

import sqlite3
from typing import Literal, NamedTuple

SendState = Literal["accepted", "trying", "sent", "failed"]


class Send(NamedTuple):
    """One directive. Times are epoch seconds; see ``schema`` for the states."""

    directive_id: str
    content: bytes
    likeness: bytes
    message_id: str
    recipients: int
    state: SendState
    tried_at: int | None = None
    error_kind: str | None = None
    error_message: str | None = None


class Waiting(NamedTuple):
    """A report that the platform does not have yet; ``body`` is JSON."""

    directive_id: str
    attempt: int
    body: str
    correlation_id: str | None = None


class Sends:
    """Intents and reports, used inside ``Store.transaction()`` only."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, directive_id: str) -> Send | None:
        """What is known of a directive."""
        row = self._connection.execute(
            "SELECT directive_id, content, likeness, message_id, recipients, state, tried_at,"
            " error_kind, error_message FROM sends WHERE directive_id = ?",
            (directive_id,),
        ).fetchone()
        return None if row is None else Send(*row)

    def add(self, send: Send) -> None:
        """A directive that comes for the first time."""
        self._connection.execute("INSERT INTO sends VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", send)

    def begin(self, directive_id: str, now: int) -> None:
        """From now on Bridge may have the mail."""
        self._connection.execute(
            "UPDATE sends SET state = 'trying', tried_at = ? WHERE directive_id = ?",
            (now, directive_id),
        )

    def not_begun(self, directive_id: str) -> None:
        """Bridge certainly does not have it."""
        self._connection.execute(
            "UPDATE sends SET state = 'accepted', tried_at = NULL WHERE directive_id = ?",
            (directive_id,),
        )

    def end(
        self,
        directive_id: str,
        state: SendState,
        error_kind: str | None = None,
        error_message: str | None = None,
    ) -> None:
        """It is certain how it ended."""
        self._connection.execute(
            "UPDATE sends SET state = ?, error_kind = ?, error_message = ? WHERE directive_id = ?",
            (state, error_kind, error_message, directive_id),
        )

    def alike(self, likeness: bytes, directive_id: str, since: int, until: int) -> int | None:
        """When another directive's mail, which Bridge takes for the same, was last tried in that time."""
        row = self._connection.execute(
            "SELECT max(tried_at) FROM sends WHERE likeness = ? AND directive_id <> ?"
            " AND state IN ('trying', 'sent') AND tried_at > ? AND tried_at <= ?",
            (likeness, directive_id, since, until),
        ).fetchone()
        return None if row[0] is None else int(row[0])

    def recipients(self, since: int, until: int) -> int:
        """How many recipients were written to in that time."""
        row = self._connection.execute(
            "SELECT coalesce(sum(recipients), 0) FROM sends WHERE tried_at > ? AND tried_at <= ?",
            (since, until),
        ).fetchone()
        return int(row[0])

    def put_report(self, report: Waiting) -> None:
        """Keep a report until the platform has it; the first one of an attempt counts."""
        self._connection.execute("INSERT OR IGNORE INTO reports VALUES (?, ?, ?, ?)", report)

    def reports(self) -> list[Waiting]:
        """Reports that wait."""
        return [
            Waiting(*row)
            for row in self._connection.execute(
                "SELECT directive_id, attempt, body, correlation_id FROM reports ORDER BY rowid"
            )
        ]

    def drop_report(self, report: Waiting) -> None:
        """The platform has it, or does not want it any more."""
        self._connection.execute(
            "DELETE FROM reports WHERE directive_id = ? AND attempt = ?",
            (report.directive_id, report.attempt),
        )
