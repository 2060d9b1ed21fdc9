"""Sending what waits, oldest first.

1. Take the oldest signals that fit into one request.
2. Send them. Whatever goes wrong on the way, they stay where they are.
3. What the platform has, now or before, leaves the queue. What it refuses is put aside, so that it
   holds up nothing. A text that it takes for a secret is masked, and the signal sent again without it.
4. A batch that is refused as a whole is halved until the signal that it is about stands alone.
"""

import json
from collections.abc import Sequence
from typing import Any

from fleetprompt_edge.clock import Clock, stamp
from fleetprompt_edge.errors import PlatformRefusedError
from fleetprompt_edge.redaction import MASK
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.queue import Queued
from fleetprompt_edge.upload.platform import Answer, Platform

BATCH_SIGNALS = 100
BATCH_BYTES = 450_000  # of the platform's 1 MiB: each batch is in memory several times
_REFUSED_AS_A_WHOLE = (400, 413, 415, 422)


class Uploader:
    """Empties the queue; used by one thread."""

    def __init__(self, store: Store, platform: Platform, clock: Clock) -> None:
        self._store = store
        self._platform = platform
        self._clock = clock

    def send_some(self) -> int:
        """Send one batch; how many signals left the queue, 0 when nothing waits.

        Raises what ``Platform.send`` raises; then nothing that was not answered has left.
        """
        with self._store.transaction():
            batch = self._store.queue.first(BATCH_SIGNALS, BATCH_BYTES)
        return self._send(batch) if batch else 0

    def tidy(self) -> None:
        """Once nothing waits: leave no text of what was sent in any file, the write-ahead log included."""
        self._store.scrub()

    def _send(self, batch: Sequence[Queued]) -> int:
        try:
            answers = self._platform.send([one.body for one in batch])
        except PlatformRefusedError as error:
            if error.status not in _REFUSED_AS_A_WHOLE:
                raise
            if len(batch) > 1:
                half = len(batch) // 2
                return self._send(batch[:half]) + self._send(batch[half:])
            answers = [Answer("refused", error.problem, error.message)]
        return self._settle(batch, answers)

    def _settle(self, batch: Sequence[Queued], answers: Sequence[Answer]) -> int:
        now = self._clock.now()
        left = 0
        with self._store.transaction():
            queue = self._store.queue
            taken = [
                one.seq
                for one, answer in zip(batch, answers, strict=True)
                if answer.verdict != "refused"
            ]
            queue.remove(taken)
            for one, answer in zip(batch, answers, strict=True):
                if answer.verdict == "refused":
                    left += self._put_aside(one, answer, int(now.timestamp()))
            if taken:
                self._store.notes.put("last_post", stamp(now))
        return len(taken) + left

    def _put_aside(self, refused: Queued, answer: Answer, now: int) -> int:
        if answer.problem == "secret-found":
            body = _without(refused.body, answer.pointers)
            if body is not None:
                self._store.queue.replace(refused.seq, body)
                return 0
        self._store.queue.bury(refused.seq, now, answer.problem, answer.detail)
        return 1


def _without(body: str, pointers: Sequence[str]) -> str | None:
    """The signal with what the pointers name masked; None if they name nothing that can be.

    A pointer begins with the signal's place in the batch. A member that is named like a secret is left
    out: its name alone is what the platform refuses.
    """
    signal = json.loads(body)
    changed = False
    for pointer in pointers:
        names = [one.replace("~1", "/").replace("~0", "~") for one in pointer.split("/")[2:]]
        changed |= len(names) > 1 and names[0] == "data" and _mask(signal, names)
    if not changed:
        return None
    signal["metadata"]["redacted"] = True
    return json.dumps(signal, ensure_ascii=False, separators=(",", ":"))


def _mask(value: Any, names: Sequence[str]) -> bool:
    *path, last = names
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return False
    if isinstance(value, dict) and last in value:
        if value[last] == MASK:
            del value[last]
        else:
            value[last] = MASK
        return True
    if isinstance(value, list) and last.isdecimal() and int(last) < len(value):
        fresh = bool(value[int(last)] != MASK)
        value[int(last)] = MASK
        return fresh
    return False
