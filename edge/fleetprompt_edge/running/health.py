"""What is wrong at present, told once for each time it begins."""

import json
from collections.abc import Collection
from threading import Lock
from typing import Any

from fleetprompt_edge.clock import Clock, stamp
from fleetprompt_edge.envelope import Writer
from fleetprompt_edge.errors import EdgeError
from fleetprompt_edge.log import logger
from fleetprompt_edge.store import Store

PROBLEMS = "problem:"  # note, by place
LAST_POLL = "last_poll:"  # note, by folder
FOLDER = "folder:"  # place of what is wrong with one folder
_AGAIN = 600.0  # seconds before the same fault at the same place is told again


class Health:
    """Problems by place (``bridge``, ``platform``, ``queue``, ``folder:INBOX``), for all threads.

    They are kept in the store, where ``status`` reads them, and told as ``connector.error``.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._turn = Lock()
        self._said: dict[str, str] = {}
        self._told: dict[tuple[str, str], float] = {}
        self.writer: Writer | None = None
        with store.transaction():
            self._problems = {
                place: str(json.loads(text)["code"])
                for place, text in store.notes.under(PROBLEMS).items()
            }

    def bad(self, place: str, error: EdgeError) -> None:
        """This is wrong there; logged and told when it begins, in its latest words as long as it goes on."""
        with self._turn:
            if self._problems.get(place) == error.code:
                self._reword(place, error)
                return
            self._problems[place] = error.code
            self._said[place] = error.message
            logger.warning(
                error.message,
                extra={
                    "place": place,
                    "kind": error.kind,
                    "code": error.code,
                    "remedy": error.remedy,
                },
            )
            now = self._clock.now()
            problem = {
                "place": place,
                "kind": error.kind,
                "code": error.code,
                "message": error.message,
                "since": stamp(now),
            }
            with self._store.transaction():
                self._store.notes.put(
                    PROBLEMS + place, json.dumps({**problem, "remedy": error.remedy})
                )
                self._tell(place, error.code, problem)

    def _reword(self, place: str, error: EdgeError) -> None:
        """The same fault may have better words by now: those of a try to connect name the port."""
        if self._said.get(place) == error.message:
            return
        self._said[place] = error.message
        with self._store.transaction():
            noted = json.loads(self._store.notes.get(PROBLEMS + place) or "{}")
            noted |= {"message": error.message, "remedy": error.remedy}
            self._store.notes.put(PROBLEMS + place, json.dumps(noted))

    def good(self, place: str) -> None:
        """All is well there."""
        with self._turn:
            code = self._problems.pop(place, None)
            if code is None:
                return
            logger.info("well again", extra={"place": place, "code": code})
            with self._store.transaction():
                self._store.notes.remove(PROBLEMS + place)

    def watching(self, folders: Collection[str]) -> None:
        """These are the folders that are watched; nothing is wrong, or known, of any other."""
        with self._turn, self._store.transaction():
            for name in self._store.notes.under(LAST_POLL).keys() - set(folders):
                self._store.notes.remove(LAST_POLL + name)
            for place in self._problems.keys() - {FOLDER + name for name in folders}:
                if place.startswith(FOLDER):
                    del self._problems[place]
                    self._store.notes.remove(PROBLEMS + place)

    def problems(self) -> list[dict[str, Any]]:
        """Everything that is wrong at present."""
        with self._store.transaction():
            return [json.loads(text) for text in self._store.notes.under(PROBLEMS).values()]

    def _tell(self, place: str, code: str, problem: dict[str, Any]) -> None:
        now = self._clock.monotonic()
        if self.writer is None or now - self._told.get((place, code), -_AGAIN) < _AGAIN:
            return
        self._told[place, code] = now
        at = self._clock.now()
        signal = self.writer.write(
            "connector.error",
            at,
            problem,
            dedupe_key=self.writer.key("connector_error", place, code, int(at.timestamp() * 1000)),
            correlation_id=f"connector:{self.writer.profile.connector_id}",
        )
        self._store.queue.put(signal.dedupe_key, signal.type, signal.body, int(at.timestamp()))
