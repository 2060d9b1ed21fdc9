"""Opening the database, and its transactions.

WAL with ``synchronous=FULL``: what was committed survives a power cut. ``secure_delete``: what was
deleted is overwritten, so that no text of a mail stays behind in free pages.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Self

from fleetprompt_edge.errors import StoreError
from fleetprompt_edge.store.ledger import Ledger
from fleetprompt_edge.store.notes import Notes
from fleetprompt_edge.store.queue import Queue
from fleetprompt_edge.store.schema import bring_up_to_date
from fleetprompt_edge.store.sends import Sends

_FILE = "connector.sqlite3"


class Store:
    """The database of one profile, used by all threads, one transaction at a time.

    ``ledger``: which mail is known and where; ``queue``: signals on their way; ``notes``: single
    facts; ``sends``: mail to send; all are used inside ``transaction()`` only. What one transaction
    writes is there after a crash, or none of it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / _FILE
        self._turn = RLock()
        self._depth = 0
        with _told(self.path):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = _open(self.path)
        try:
            with _told(self.path):
                bring_up_to_date(self._connection)
        except ValueError as error:
            self._connection.close()
            raise StoreError(
                f"The database {self.path} cannot be used: {error}.",
                remedy="Install the newest fleetprompt-edge; nothing was changed.",
            ) from None
        except BaseException:
            self._connection.close()
            raise
        self.ledger = Ledger(self._connection)
        self.queue = Queue(self._connection)
        self.notes = Notes(self._connection)
        self.sends = Sends(self._connection)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; may be nested, the outermost commits. ``StoreError`` if it cannot."""
        with self._turn, _told(self.path):
            if self._depth:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._depth = 1
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                self._depth = 0

    def close(self) -> None:
        """Fold the log into the database and close it."""
        with self._turn, _told(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def scrub(self) -> None:
        """Empty the write-ahead log, whose older frames may hold what was deleted since."""
        with self._turn, _told(self.path):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _open(path: Path) -> sqlite3.Connection:
    # Made by us first, so that it is never readable by others, not even for a moment.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = sqlite3.connect(
        path, timeout=10, isolation_level=None, check_same_thread=False, cached_statements=200
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA journal_size_limit=4194304")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError("malformed")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """SQLite's and the file system's errors as ``StoreError``, with how to mend them."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (sqlite3.DatabaseError, OSError) as error:
        text = str(error).lower()
        full = "full" in text or getattr(error, "errno", None) == 28
        if full:
            raise StoreError(
                f"There is no space left for {path}.",
                remedy="Free some disk space; no mail is lost, it stays in the mailbox meanwhile.",
            ) from error
        if "locked" in text or "busy" in text:
            raise StoreError(
                f"{path} is held by another program.", remedy="Close the program that has it open."
            ) from error
        if "malformed" in text or "not a database" in text:
            aside = _copy_aside(path)
            raise StoreError(
                f"The database {path} is damaged; a copy was put at {aside}.",
                remedy="Restore it from a backup; or remove it and its -wal file, start the connector, and "
                "`fleetprompt-edge backfill --since` the day when it last ran well.",
            ) from error
        reason = error.strerror if isinstance(error, OSError) else "it cannot be opened or written"
        raise StoreError(
            f"{path}: {reason}.", remedy="Check owner and permissions of that folder."
        ) from error


def _copy_aside(path: Path) -> Path:
    """Copy a damaged database beside itself, once; the original stays for a repair."""
    import shutil

    aside = path.with_suffix(".damaged")
    if not aside.exists():
        shutil.copyfile(path, aside)
        aside.chmod(0o600)
    return aside
