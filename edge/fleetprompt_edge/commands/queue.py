"""``queue list | retry | drop`` and ``backfill``."""

import argparse

from fleetprompt_edge.commands.shared import (
    OK,
    TO_MEND,
    answering,
    moment,
    opened,
    profile_of,
)
from fleetprompt_edge.telling import tell


@answering
def show(asked: argparse.Namespace) -> int:
    """What waits and what was refused."""
    _, folder = profile_of(asked)
    with opened(folder) as store, store.transaction():
        backlog = store.queue.backlog()
        dead = store.queue.dead_letters()
    content = {
        "ok": True,
        "waiting": {
            "signals": backlog.signals,
            "bytes": backlog.bytes,
            "oldest": moment(backlog.oldest),
        },
        "dead_letters": [{**one._asdict(), "refused_at": moment(one.refused_at)} for one in dead],
    }
    lines = [f"{backlog.signals} signals wait ({backlog.bytes} bytes)."]
    lines += [
        f"refused {one.seq}  {moment(one.refused_at)}  {one.type}  {one.problem}: {one.detail}"
        for one in dead
    ]
    tell(asked, content, "\n".join(lines))
    return OK


@answering
def retry(asked: argparse.Namespace) -> int:
    """Queue refused signals again."""
    _, folder = profile_of(asked)
    with opened(folder) as store, store.transaction():
        count = store.queue.revive(asked.seq)
    return _counted(asked, count, "queued again")


@answering
def drop(asked: argparse.Namespace) -> int:
    """Forget refused signals for good."""
    _, folder = profile_of(asked)
    with opened(folder) as store:
        with store.transaction():
            count = store.queue.drop_dead(asked.seq)
        store.scrub()
    return _counted(asked, count, "dropped")


@answering
def backfill(asked: argparse.Namespace) -> int:
    """Ask for mail that was there before the connector; the running one, or the next, does it."""
    _, folder = profile_of(asked)
    with opened(folder) as store, store.transaction():
        watched = [one for one in store.ledger.folders() if asked.folder in (None, one.name)]
        for one in watched:
            store.ledger.ask_backfill(one.id, asked.since)
    names = [one.name for one in watched]
    if not names:
        tell(
            asked,
            {"ok": False, "folders": []},
            "No such folder was ever looked at. Start the connector once, then ask again.",
        )
        return TO_MEND
    tell(
        asked,
        {"ok": True, "folders": names, "since": moment(asked.since)},
        f"Mail since {moment(asked.since)} in {', '.join(names)} will be told at the next look.",
    )
    return OK


def _counted(asked: argparse.Namespace, count: int, what: str) -> int:
    done = count > 0 or asked.seq is None
    tell(asked, {"ok": done, "signals": count}, f"{count} signals {what}.")
    return OK if done else TO_MEND
