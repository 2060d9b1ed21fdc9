"""Histories of sending with crashes between every two steps: never a mail twice, never an untrue outcome.

Before and after each commit, each call to Bridge and each request the connector may crash; the platform lets
leases run out, sends the same directive again, and loses reports.
"""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetprompt_edge.sending.smtp import Delivery
from fleetprompt_edge.store import Store

from tests.edge.ingesting import TurnedClock
from tests.edge.sending import Office, PostOffice, asked

SCRIPT: tuple[str | Delivery, ...] = (
    "ok",
    "lost",
    "gone",
    Delivery("not_taken", "network", "down"),
    Delivery("doubtful", "network", "failed", said_no=True),
)


class CrashError(BaseException):
    """The process is gone."""


@contextmanager
def _crashing(store: Store, step: Callable[[], None]) -> Iterator[None]:
    """Crashes before a transaction begins, before it commits, and right after it."""
    real, depth = store.transaction, [0]

    @contextmanager
    def transaction() -> Iterator[None]:
        if depth[0]:
            with real():
                yield
            return
        step()
        depth[0] = 1
        try:
            with real():
                yield
                step()
        finally:
            depth[0] = 0
        step()

    store.transaction = transaction  # type: ignore[method-assign]  # the seam of this test
    try:
        yield
    finally:
        store.transaction = real  # type: ignore[method-assign]  # as it was


def history(seed: int, folder: Path) -> tuple[int, int]:
    """One history; how many crashes there were, and how many mails were sent."""
    chance = random.Random(seed)
    clock = TurnedClock()
    bridge = PostOffice(clock, late=chance.choice([0, 0, 20, 60]))
    rate = chance.choice([0.0, 0.05, 0.15])
    crashes = 0
    calm = False

    def step() -> None:
        if not calm and chance.random() < rate:
            raise CrashError

    bridge.step = step
    ended: dict[int, str] = {}
    attempts = dict.fromkeys(range(1, chance.choice([2, 4])), 0)
    # Some of the mails look alike, so that Bridge would swallow all but the first.
    texts = {number: chance.choice(["same", f"own {number}"]) for number in attempts}
    store: Store | None = None
    for turn in range(400):
        calm = turn > 40
        open_ones = [one for one in attempts if one not in ended]
        if not open_ones:
            break
        number = chance.choice(open_ones)
        attempts[number] += 1
        bridge.unreadable = not calm and chance.random() < 0.15
        bridge.script = [] if calm else [chance.choice(SCRIPT)]
        leased = asked(number, attempts[number], text_body=texts[number])
        store = store or Store(folder)
        try:
            with _crashing(store, step):
                office = Office(store, clock=clock)
                office.bridge = bridge
                office.sender = office.restarted(store)
                said = office.work(leased, held=chance.random() < 0.9)
        except CrashError:
            crashes += 1
            store.close()
            store = None
        else:
            # A report may be lost for good: then the lease runs out.
            if said is not None and (calm or chance.random() < 0.7):
                _note(ended, number, said)
        clock.turn(chance.choice([1, 60, 600, 2000]))
    if store is not None:
        store.close()
    _check(bridge, ended, attempts, folder)
    return crashes, len(bridge.sent)


def _note(ended: dict[int, str], number: int, said: dict[str, Any]) -> None:
    # What nobody can tell is decided by a person, who asks for another attempt here.
    if said["outcome"] in ("succeeded", "failed"):
        ended[number] = said["outcome"]


def _check(
    bridge: PostOffice, ended: dict[int, str], attempts: dict[int, int], folder: Path
) -> None:
    ids = [one[0] for one in bridge.sent]
    assert len(ids) == len(set(ids)), "sent twice"
    assert set(ended) == set(attempts), "without an end"
    with Store(folder) as store, store.transaction():
        signals = [json.loads(one.body) for one in store.queue.first(10_000, 1 << 30)]
        rows = {number: store.sends.find(asked(number).id) for number in attempts}
    keys = [one["dedupe_key"] for one in signals]
    assert len(keys) == len(set(keys))
    for number, row in rows.items():
        assert row is not None
        own = [one["type"] for one in signals if one["subject_id"] == asked(number).id]
        assert ended[number] == "succeeded"
        assert row.message_id in ids, "told as sent, and was not"
        assert own == ["email.outbound.requested", "email.outbound.sent"]
