"""Which mail is known, by identity, and where it was found.

A mail is the same mail under any folder and UID. What it was first told as (``dedupe_key``) stays
its key for good, so that a resync, a move or a label tells nothing twice.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

State = Literal["known", "outgoing", "emitted", "failed"]
"""``known``: was there before the connector, never told. ``outgoing``: seen among sent mail or drafts
only. ``emitted``: told. ``failed``: told as unreadable."""


_AT_ONCE = 500  # identities looked up by one statement


class Folder(NamedTuple):
    """A watched folder and how far it was looked at; see ``schema``."""

    id: int
    name: str
    uidvalidity: int
    seen_up_to: int
    old_up_to: int
    old_before: int


class Known(NamedTuple):
    """A mail of the ledger."""

    id: int
    state: State
    dedupe_key: str | None


class Unreadable(NamedTuple):
    """A mail that could not be fetched so far; ``backfill``: it is wanted although it is old."""

    uid: int
    internal_date: int | None
    attempts: int
    backfill: bool = False


class Backfill(NamedTuple):
    """A backfill under way: since when (epoch s), done up to which UID."""

    since: int
    done_up_to: int


class Ledger:
    """Folders, mails, and where they are. Times are epoch seconds."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def folder(self, name: str) -> Folder | None:
        """A folder, if it was ever looked at."""
        row = self._connection.execute("SELECT * FROM folders WHERE name = ?", (name,)).fetchone()
        return None if row is None else Folder(*row)

    def folders(self) -> list[Folder]:
        """Every folder that was ever looked at."""
        return [
            Folder(*row) for row in self._connection.execute("SELECT * FROM folders ORDER BY name")
        ]

    def add_folder(self, name: str, uidvalidity: int, old_up_to: int, old_before: int) -> None:
        """Begin to watch a folder: what is there now is old."""
        self._connection.execute(
            "INSERT INTO folders (name, uidvalidity, seen_up_to, old_up_to, old_before)"
            " VALUES (?, ?, 0, ?, ?)",
            (name, uidvalidity, old_up_to, old_before),
        )

    def restart_folder(self, folder_id: int, uidvalidity: int) -> None:
        """UIDs mean something else now: forget where mails are, not which are known."""
        for table in ("places", "unreadable"):
            self._connection.execute(f"DELETE FROM {table} WHERE folder_id = ?", (folder_id,))  # noqa: S608
        self._connection.execute(
            "UPDATE backfills SET done_up_to = 0 WHERE folder_id = ?", (folder_id,)
        )
        self._connection.execute(
            "UPDATE folders SET uidvalidity = ?, seen_up_to = 0, old_up_to = 0 WHERE id = ?",
            (uidvalidity, folder_id),
        )

    def advance(self, folder_id: int, seen_up_to: int) -> None:
        """Every UID up to this one has been looked at; never goes back."""
        self._connection.execute(
            "UPDATE folders SET seen_up_to = max(seen_up_to, ?) WHERE id = ?",
            (seen_up_to, folder_id),
        )

    def find(self, identity: bytes) -> Known | None:
        """A mail by its identity."""
        row = self._connection.execute(
            "SELECT id, state, dedupe_key FROM messages WHERE identity = ?", (identity,)
        ).fetchone()
        return None if row is None else Known(*row)

    def find_all(self, identities: Sequence[bytes]) -> dict[bytes, Known]:
        """Those of the mails that are known, by identity."""
        found: dict[bytes, Known] = {}
        for at in range(0, len(identities), _AT_ONCE):
            some = identities[at : at + _AT_ONCE]
            rows = self._connection.execute(
                "SELECT identity, id, state, dedupe_key FROM messages"  # noqa: S608 - marks only
                f" WHERE identity IN ({','.join('?' * len(some))})",
                some,
            )
            for identity, message_id, state, dedupe_key in rows:
                found[identity] = Known(message_id, state, dedupe_key)
        return found

    def add_all(self, mails: Iterable[tuple[bytes, State, int | None]]) -> None:
        """Mails seen for the first time that are not told: identity, state, time of arrival."""
        self._connection.executemany(
            "INSERT INTO messages (identity, state, internal_date) VALUES (?, ?, ?)"
            " ON CONFLICT (identity) DO NOTHING",
            mails,
        )

    def add(
        self,
        identity: bytes,
        state: State,
        internal_date: int | None,
        dedupe_key: str | None = None,
    ) -> int:
        """A mail seen for the first time; its id."""
        done = self._connection.execute(
            "INSERT INTO messages (identity, state, internal_date, dedupe_key) VALUES (?, ?, ?, ?)",
            (identity, state, internal_date, dedupe_key),
        )
        return int(done.lastrowid or 0)

    def tell(self, message_id: int, state: State, dedupe_key: str) -> None:
        """A mail that was seen before is now told."""
        self._connection.execute(
            "UPDATE messages SET state = ?, dedupe_key = ? WHERE id = ?",
            (state, dedupe_key, message_id),
        )

    def place(self, folder_id: int, uid: int, message_id: int) -> None:
        """A mail is found here."""
        self.place_all(folder_id, [(uid, message_id)])

    def place_all(self, folder_id: int, mails: Iterable[tuple[int, int]]) -> None:
        """Mails are found here: UID and the mail's id."""
        self._connection.executemany(
            "INSERT INTO places VALUES (?, ?, ?)"
            " ON CONFLICT (folder_id, uid) DO UPDATE SET message_id = excluded.message_id",
            ((folder_id, uid, message_id) for uid, message_id in mails),
        )

    def at(self, folder_id: int, uid: int) -> Known | None:
        """The mail that was found here."""
        row = self._connection.execute(
            "SELECT m.id, m.state, m.dedupe_key FROM places p JOIN messages m ON m.id = p.message_id"
            " WHERE p.folder_id = ? AND p.uid = ?",
            (folder_id, uid),
        ).fetchone()
        return None if row is None else Known(*row)

    def is_taken(self, dedupe_key: str) -> bool:
        """Whether another mail was told under this key."""
        row = self._connection.execute(
            "SELECT 1 FROM messages WHERE dedupe_key = ?", (dedupe_key,)
        ).fetchone()
        return row is not None

    def set_unreadable(self, folder_id: int, mail: Unreadable) -> None:
        """Ask for this mail again later."""
        self._connection.execute(
            "INSERT INTO unreadable VALUES (?, ?, ?, ?, ?) ON CONFLICT (folder_id, uid)"
            " DO UPDATE SET attempts = excluded.attempts, backfill = max(backfill, excluded.backfill)",
            (folder_id, mail.uid, mail.internal_date, mail.attempts, mail.backfill),
        )

    def clear_unreadable(self, folder_id: int, uid: int) -> None:
        """This mail was read, told as failed, or is gone."""
        self._connection.execute(
            "DELETE FROM unreadable WHERE folder_id = ? AND uid = ?", (folder_id, uid)
        )

    def unreadable(self, folder_id: int) -> list[Unreadable]:
        """Mails to ask for again."""
        return [
            Unreadable(uid, internal_date, attempts, bool(backfill))
            for uid, internal_date, attempts, backfill in self._connection.execute(
                "SELECT uid, internal_date, attempts, backfill FROM unreadable"
                " WHERE folder_id = ? ORDER BY uid",
                (folder_id,),
            )
        ]

    def ask_backfill(self, folder_id: int, since: int) -> None:
        """Look again at everything since then; an earlier wish that reached less far is replaced."""
        self._connection.execute(
            "INSERT INTO backfills VALUES (?, ?, 0) ON CONFLICT (folder_id)"
            " DO UPDATE SET since = min(since, excluded.since), done_up_to = 0",
            (folder_id, since),
        )

    def backfill(self, folder_id: int) -> Backfill | None:
        """The backfill under way, if one is."""
        row = self._connection.execute(
            "SELECT since, done_up_to FROM backfills WHERE folder_id = ?", (folder_id,)
        ).fetchone()
        return None if row is None else Backfill(*row)

    def advance_backfill(self, folder_id: int, done_up_to: int) -> None:
        """The backfill has looked at every UID up to this one."""
        self._connection.execute(
            "UPDATE backfills SET done_up_to = ? WHERE folder_id = ?", (done_up_to, folder_id)
        )

    def end_backfill(self, folder_id: int) -> None:
        """The backfill is complete."""
        self._connection.execute("DELETE FROM backfills WHERE folder_id = ?", (folder_id,))

    def counts(self) -> dict[str, int]:
        """How many mails are in each state."""
        return dict(
            self._connection.execute(
                "SELECT state, count(*) FROM messages GROUP BY state"
            ).fetchall()
        )
