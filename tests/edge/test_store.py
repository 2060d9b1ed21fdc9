"""The local database: nothing half-written, nothing left behind, clear words when it fails."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fleetprompt_edge.errors import ProfileBusyError, StoreError
from fleetprompt_edge.store import ProfileLock, Store
from fleetprompt_edge.store.ledger import Unreadable
from fleetprompt_edge.store.lock import running_process
from fleetprompt_edge.store.schema import STEPS
from fleetprompt_edge.store.sends import Waiting
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule


def put(store: Store, key: str, body: str = "{}") -> bool:
    with store.transaction():
        return store.queue.put(key, "email.inbound.received", body, 1)


def keys(store: Store) -> list[str]:
    with store.transaction():
        return [one.dedupe_key for one in store.queue.first(1000, 1 << 30)]


def test_what_is_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    with Store(tmp_path) as store, store.transaction():
        store.ledger.add_folder("INBOX", 7, 41, 1000)
        folder = store.ledger.folder("INBOX")
        assert folder is not None
        message = store.ledger.add(b"i" * 16, "emitted", None, "k")
        store.ledger.place(folder.id, 42, message)
        store.ledger.advance(folder.id, 42)
        store.queue.put("k", "email.inbound.received", "{}", 5)
        store.notes.put("tenant", "northwind")
        store.notes.put("tenant", "southwind")
    with Store(tmp_path) as store, store.transaction():
        folder = store.ledger.folder("INBOX")
        assert folder is not None
        assert folder[2:] == (7, 42, 41, 1000)
        assert (
            store.ledger.at(folder.id, 42)
            == store.ledger.find(b"i" * 16)
            == (message, "emitted", "k")
        )
        assert store.notes.get("tenant") == "southwind"
        assert store.queue.backlog() == (1, 2, 5, 0)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with Store(tmp_path / "new") as store:
        put(store, "k")
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
        for path in (tmp_path / "new").iterdir():
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.queue.put("a", "t.t", "{}", 1)
        with store.transaction():
            store.queue.put("b", "t.t", "{}", 1)
        _ = 1 / 0
    assert keys(store) == []


def test_a_renumbered_folder_forgets_places_and_not_mails(store: Store) -> None:
    with store.transaction():
        ledger = store.ledger
        ledger.add_folder("INBOX", 1, 10, 1000)
        folder = ledger.folder("INBOX")
        assert folder is not None
        ledger.place(folder.id, 11, ledger.add(b"x" * 16, "emitted", 2000, "k"))
        ledger.set_unreadable(folder.id, Unreadable(12, None, 1))
        ledger.advance(folder.id, 12)
        ledger.restart_folder(folder.id, 2)
        assert ledger.folder("INBOX") == (folder.id, "INBOX", 2, 0, 0, 1000)
        assert ledger.at(folder.id, 11) is None
        assert ledger.unreadable(folder.id) == []
        assert ledger.find(b"x" * 16) is not None


def test_the_position_of_a_folder_never_goes_back(store: Store) -> None:
    with store.transaction():
        store.ledger.add_folder("INBOX", 1, 0, 0)
        for position in (5, 9, 3):
            store.ledger.advance(1, position)
        (folder,) = store.ledger.folders()
    assert folder.seen_up_to == 9


def test_dead_letters_are_put_aside_revived_and_dropped(store: Store) -> None:
    for key in ("a", "b", "c"):
        put(store, key)
    with store.transaction():
        first, second, _ = store.queue.first(10, 100)
        store.queue.bury(first.seq, 9, "invalid", "x" * 1000)
        store.queue.bury(second.seq, 9, "secret-found", "…")
        dead = store.queue.dead_letters()
    assert [(one.dedupe_key, one.problem, len(one.detail)) for one in dead] == [
        ("a", "invalid", 500),
        ("b", "secret-found", 1),
    ]
    assert keys(store) == ["c"]
    # The same event again is not sent behind the back of the one put aside.
    assert not put(store, "a")
    with store.transaction():
        assert store.queue.revive(first.seq) == 1
        assert store.queue.drop_dead() == 1
    assert keys(store) == ["c", "a"]


def test_a_batch_has_at_least_one_signal_and_otherwise_fits(store: Store) -> None:
    for number, size in enumerate((90, 40, 40, 40)):
        put(store, str(number), "x" * size)
    with store.transaction():
        assert [one.dedupe_key for one in store.queue.first(10, 50)] == ["0"]
        store.queue.remove([1])
        assert [one.dedupe_key for one in store.queue.first(10, 82)] == ["1", "2"]
        assert len(store.queue.first(2, 1000)) == 2


def test_trap_42_nothing_of_what_was_deleted_is_left_in_any_file(tmp_path: Path) -> None:
    canary = "canary-text-of-a-mail-9b2f"
    with Store(tmp_path) as store:
        for number in range(50):
            put(store, str(number), canary * 20)
        with store.transaction():
            store.queue.remove([one.seq for one in store.queue.first(100, 1 << 20)])
        store.scrub()
        for path in tmp_path.iterdir():
            assert canary.encode() not in path.read_bytes(), path


_FILL = """
import sys
from pathlib import Path
from fleetprompt_edge.store import Store
with Store(Path(sys.argv[1])) as store:
    number = 0
    while True:
        number += 1
        with store.transaction():
            store.ledger.add(number.to_bytes(16, "big"), "emitted", 1, str(number))
            store.queue.put(str(number), "t.t", "{}", 1)
            store.notes.put("last", str(number))
        print(number, flush=True)
"""


@pytest.mark.slow
def test_trap_33_kill_9_at_any_moment_leaves_whole_transactions(tmp_path: Path) -> None:
    acknowledged = 0
    for turn in range(5):
        folder = tmp_path / str(turn)
        process = subprocess.Popen(
            [sys.executable, "-c", _FILL, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5):
            acknowledged = int(process.stdout.readline())
        time.sleep(0.013 * turn)
        process.send_signal(signal.SIGKILL)
        rest = process.communicate(timeout=20)[0].split()
        acknowledged = max([acknowledged, *map(int, rest)])
        with Store(folder) as store, store.transaction():
            last = int(store.notes.get("last") or 0)
            assert last >= acknowledged
            assert store.ledger.counts() == {"emitted": last}
            assert store.queue.backlog().signals == last


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_trap_32_a_damaged_database_is_told_and_kept_for_a_repair(
    tmp_path: Path, size: int
) -> None:
    with Store(tmp_path) as store:
        for number in range(200):
            put(store, str(number), "x" * 500)
        path = store.path
    damaged = bytearray(path.read_bytes())
    damaged[size : size + 4000] = b"\xff" * 4000
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="damaged") as caught:
        Store(tmp_path)
    assert "backfill" in caught.value.remedy
    assert path.read_bytes() == damaged
    assert path.with_suffix(".damaged").read_bytes() == damaged


def test_trap_32_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        put(store, "a")
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match="no space left") as caught:
            put(store, "b", "x" * 100_000)
        assert "stays in the mailbox" in caught.value.remedy
        assert keys(store) == ["a"]
        store._connection.execute("PRAGMA max_page_count=100000")
        assert put(store, "b", "x" * 100_000)


def test_trap_32_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        Store(tmp_path / "file" / "state")


def test_trap_37_a_second_connector_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    assert running_process(tmp_path) is None
    with ProfileLock(tmp_path):
        with pytest.raises(ProfileBusyError, match=f"process {os.getpid()}"), ProfileLock(tmp_path):
            pass
        assert running_process(tmp_path) == os.getpid()
    with ProfileLock(tmp_path):
        pass
    assert running_process(tmp_path) is None


def test_trap_37_who_only_looks_whether_it_runs_does_not_keep_it_from_starting(
    tmp_path: Path,
) -> None:
    looking = ProfileLock(tmp_path)
    looking.__enter__()
    ends = threading.Timer(0.2, looking.__exit__, (None, None, None))
    ends.start()
    with ProfileLock(tmp_path, patience=30):
        assert running_process(tmp_path) == os.getpid()
    ends.join()
    assert running_process(tmp_path) is None


def test_trap_37_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from fleetprompt_edge.store import ProfileLock\n"
        "with ProfileLock(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert running_process(tmp_path) == process.pid
    process.kill()
    process.communicate(timeout=20)
    assert running_process(tmp_path) is None


def test_trap_48_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        path = store.path
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    with pytest.raises(StoreError, match="newer"):
        Store(tmp_path)


@pytest.mark.parametrize("steps", range(1, len(STEPS)))
def test_trap_48_an_older_database_keeps_what_is_on_its_way(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "connector.sqlite3"
    connection = sqlite3.connect(path)
    for step in STEPS[:steps]:
        connection.executescript(step)
    connection.execute(f"PRAGMA user_version = {steps}")
    connection.execute("INSERT INTO folders VALUES (1, 'INBOX', 7, 5, 3, 100)")
    connection.execute("INSERT INTO messages VALUES (1, x'aa', 'emitted', 100, 'key')")
    connection.execute("INSERT INTO places VALUES (1, 5, 1)")
    connection.execute("INSERT INTO queue VALUES (9, 'key', 'a.b.c', '{}', 2, 100)")
    if steps > 1:
        connection.execute("INSERT INTO reports VALUES ('d', 2, '{}')")
    connection.commit()
    connection.close()
    with Store(tmp_path) as store, store.transaction():
        assert [one.seq for one in store.queue.first(10, 100)] == [9]
        assert store.ledger.at(1, 5) == (1, "emitted", "key")
        waiting = [Waiting("d", 2, "{}")] if steps > 1 else []
        assert store.sends.reports() == waiting
        store.sends.put_report(Waiting("e", 1, "{}", "order:1"))
        assert store.sends.reports() == [*waiting, Waiting("e", 1, "{}", "order:1")]


class QueueAgainstAModel(RuleBasedStateMachine):
    """The queue and two lists do the same."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name))
        self.waiting: list[str] = []
        self.dead: list[str] = []

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(key=st.sampled_from("abcdefgh"))
    def put(self, key: str) -> None:
        new = key not in self.waiting and key not in self.dead
        assert put(self.store, key) == new
        if new:
            self.waiting.append(key)

    @rule(most=st.integers(1, 4))
    def send(self, most: int) -> None:
        with self.store.transaction():
            batch = self.store.queue.first(most, 1 << 20)
            self.store.queue.remove([one.seq for one in batch])
        assert [one.dedupe_key for one in batch] == self.waiting[:most]
        del self.waiting[:most]

    @rule()
    def bury_the_first(self) -> None:
        with self.store.transaction():
            for one in self.store.queue.first(1, 1 << 20):
                self.store.queue.bury(one.seq, 1, "invalid", "")
                self.dead.append(self.waiting.pop(0))

    @rule()
    def revive(self) -> None:
        with self.store.transaction():
            order = [one.dedupe_key for one in self.store.queue.dead_letters()]
            assert self.store.queue.revive() == len(order)
        assert sorted(order) == sorted(self.dead)
        self.waiting += order
        self.dead = []

    @rule()
    def open_again(self) -> None:
        self.store.close()
        self.store = Store(Path(self.folder.name))

    @invariant()
    def nothing_is_lost_or_there_twice(self) -> None:
        assert keys(self.store) == self.waiting
        with self.store.transaction():
            backlog = self.store.queue.backlog()
            assert self.store.queue.bytes_waiting() == 2 * (len(self.waiting) + len(self.dead))
        assert (backlog.signals, backlog.dead_letters) == (len(self.waiting), len(self.dead))


QueueAgainstAModel.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None
)
TestQueueAgainstAModel = QueueAgainstAModel.TestCase
