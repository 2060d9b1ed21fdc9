"""Identifiers: UUID version 7, ordered and distinct, whatever the clock does."""

import os
import time
from uuid import RFC_4122

import pytest

from fleetprompt import ids


def test_ids_are_uuid_7_of_now_in_order_and_distinct() -> None:
    before = time.time_ns() // 1_000_000
    made = [ids.new_id() for _ in range(20_000)]
    assert {(one.version, one.variant) for one in made} == {(7, RFC_4122)}
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert before <= made[0].int >> 80 <= time.time_ns() // 1_000_000 + 5


def test_the_random_bits_of_one_millisecond_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetprompt.ids.time.time_ns", lambda: 10**18)
    made = [ids.new_id() for _ in range(10_000)]
    assert made == sorted(made)
    assert len({one.int & (1 << 62) - 1 for one in made}) == len(made)


def test_a_clock_that_goes_back_changes_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_id()
    monkeypatch.setattr("fleetprompt.ids.time.time_ns", lambda: 10**15)
    assert ids.new_id() > first


def test_a_forked_process_makes_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetprompt.ids.time.time_ns", lambda: 2 * 10**18)
    ids.new_id()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ids.new_id().bytes)
        os._exit(0)
    mine = ids.new_id()
    os.waitpid(child, 0)
    assert os.read(reader, 16) != mine.bytes
    os.close(reader)
    os.close(writer)
