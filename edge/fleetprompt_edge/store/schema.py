"""The tables, and how an older database becomes a newer one.

``PRAGMA user_version`` counts the steps that a database has behind it. A step is never changed once
it was released; rows in flight survive every step.
"""

import sqlite3

_FIRST = """
-- A watched folder. Every UID up to seen_up_to, under this UIDVALIDITY, has been looked at. A message
-- is old, and never new, if its UID is at most old_up_to or it arrived before old_before (epoch s).
CREATE TABLE folders (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  uidvalidity INTEGER NOT NULL,
  seen_up_to INTEGER NOT NULL,
  old_up_to INTEGER NOT NULL,
  old_before INTEGER NOT NULL
) STRICT;

-- One row for each mail, however many folders and UIDs it is found under. dedupe_key is what it was
-- first told as, and stays. internal_date is in epoch seconds, null if unknown.
CREATE TABLE messages (
  id INTEGER PRIMARY KEY,
  identity BLOB NOT NULL UNIQUE,
  state TEXT NOT NULL CHECK (state IN ('known', 'outgoing', 'emitted', 'failed')),
  internal_date INTEGER,
  dedupe_key TEXT UNIQUE
) STRICT;
CREATE INDEX messages_by_date ON messages (internal_date);

-- Where a mail was found, under the folder's present UIDVALIDITY.
CREATE TABLE places (
  folder_id INTEGER NOT NULL REFERENCES folders ON DELETE CASCADE,
  uid INTEGER NOT NULL,
  message_id INTEGER NOT NULL REFERENCES messages,
  PRIMARY KEY (folder_id, uid)
) STRICT, WITHOUT ROWID;

-- Mails that Bridge did not hand out; asked for again until told as failed. backfill: 1 if a backfill
-- wants them, which tells of old mail too.
CREATE TABLE unreadable (
  folder_id INTEGER NOT NULL REFERENCES folders ON DELETE CASCADE,
  uid INTEGER NOT NULL,
  internal_date INTEGER,
  attempts INTEGER NOT NULL,
  backfill INTEGER NOT NULL,
  PRIMARY KEY (folder_id, uid)
) STRICT, WITHOUT ROWID;

-- Backfill that was asked for: mail since a point in time (epoch s), done up to a UID.
CREATE TABLE backfills (
  folder_id INTEGER PRIMARY KEY REFERENCES folders ON DELETE CASCADE,
  since INTEGER NOT NULL,
  done_up_to INTEGER NOT NULL
) STRICT;

-- Signals on their way, oldest first.
CREATE TABLE queue (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  dedupe_key TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL,
  body TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  enqueued_at INTEGER NOT NULL
) STRICT;
CREATE INDEX queue_bytes ON queue (bytes);

-- Signals that the platform refused, put aside for a person.
CREATE TABLE dead_letters (
  seq INTEGER PRIMARY KEY,
  dedupe_key TEXT NOT NULL UNIQUE,
  type TEXT NOT NULL,
  body TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  enqueued_at INTEGER NOT NULL,
  refused_at INTEGER NOT NULL,
  problem TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;

-- Single facts that outlive a run.
CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

_SENDING = """
-- One row for each directive to send a mail. accepted: Bridge certainly does not have it; trying: written
-- before the first byte, Bridge may have it; sent: seen among the sent mail; failed: certainly not sent.
-- content: digest of the params. likeness: digest of what Bridge compares mails by. tried_at in epoch s.
CREATE TABLE sends (
  directive_id TEXT PRIMARY KEY,
  content BLOB NOT NULL,
  likeness BLOB NOT NULL,
  message_id TEXT NOT NULL,
  recipients INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('accepted', 'trying', 'sent', 'failed')),
  tried_at INTEGER,
  error_kind TEXT,
  error_message TEXT
) STRICT;
CREATE INDEX sends_by_time ON sends (tried_at);

-- How an attempt ended, until the platform has been told.
CREATE TABLE reports (
  directive_id TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (directive_id, attempt)
) STRICT;
"""

_CORRELATION = """
-- What the signals of a report's directive are told under; null in reports of before this step.
ALTER TABLE reports ADD COLUMN correlation_id TEXT;
"""

STEPS: tuple[str, ...] = (_FIRST, _SENDING, _CORRELATION)


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Take every step that is missing, each in one transaction; ValueError for a newer database."""
    done: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if done > len(STEPS):
        raise ValueError(f"version {done} is newer than this program's {len(STEPS)}")
    for number in range(done, len(STEPS)):
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{STEPS[number]}\nPRAGMA user_version = {number + 1};\nCOMMIT;"
        )
