"""How a connector is, read from what it left in its state folder, whether it runs or not."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleetprompt_edge import __version__
from fleetprompt_edge.profile import Profile
from fleetprompt_edge.running.health import LAST_POLL, PROBLEMS
from fleetprompt_edge.store import Store
from fleetprompt_edge.store.lock import running_process

_SILENT = 3  # heartbeats that a running connector may miss


@dataclass(frozen=True, slots=True)
class Condition:
    """``problems``: each with ``place``, ``code``, ``message`` and ``remedy``; none means that all is well.

    ``process``: the number of the running one. ``last_poll_at``: by folder. ``queue``: ``signals`` and
    ``bytes``. ``mails``: counts of the ledger.
    """

    problems: list[dict[str, Any]]
    process: int | None
    connector_id: str
    state: Path
    last_poll_at: dict[str, str]
    last_post_at: str | None
    queue: dict[str, int]
    dead_letters: int
    mails: dict[str, int]

    @property
    def well(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def content(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "ok": self.well,
            "version": __version__,
            "process": self.process,
            "connector_id": self.connector_id,
            "state": str(self.state),
            "last_poll_at": self.last_poll_at,
            "last_post_at": self.last_post_at,
            "queue": self.queue,
            "dead_letters": self.dead_letters,
            "mails": self.mails,
            "problems": self.problems,
        }


def condition(profile: Profile, folder: Path) -> Condition:
    """How it is now; ``StoreError`` if its database cannot be read."""
    process = running_process(folder)
    with Store(folder) as store, store.transaction():
        problems = [json.loads(text) for text in store.notes.under(PROBLEMS).values()]
        polls = store.notes.under(LAST_POLL)
        backlog = store.queue.backlog()
        mails = store.ledger.counts()
        alive_at = store.notes.get("alive_at")
        last_post = store.notes.get("last_post")
    longest = _SILENT * profile.health.heartbeat_interval_seconds
    if process is None:
        stopped = _problem(
            "connector", "not_running", "It is not running.", "Start it: `fleetprompt-edge run`."
        )
        problems.insert(0, stopped)
    elif alive_at and _age(alive_at) > longest:
        silent = f"It runs and has not beaten its heart since {alive_at}."
        problems.insert(0, _problem("connector", "silent", silent, "See its logs; restart it."))
    if backlog.dead_letters:
        refused = f"FleetPrompt refused {backlog.dead_letters} signals."
        remedy = "See them: `fleetprompt-edge queue list`."
        problems.append(_problem("queue", "dead_letters", refused, remedy))
    return Condition(
        problems,
        process,
        profile.connector_id,
        folder,
        polls,
        last_post,
        {"signals": backlog.signals, "bytes": backlog.bytes},
        backlog.dead_letters,
        mails,
    )


def _problem(place: str, code: str, message: str, remedy: str) -> dict[str, Any]:
    return {"place": place, "code": code, "message": message, "remedy": remedy}


def _age(stamped: str) -> float:
    then = datetime.fromisoformat(stamped.replace("Z", "+00:00"))
    return (datetime.now(UTC) - then).total_seconds()
