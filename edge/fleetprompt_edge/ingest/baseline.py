"""Beginning to watch: what is in the mailbox now is old, what comes from now on is new.

That holds for each entry of the profile from when it is first looked for. A folder that it means and that
comes later is new itself (``reader``): what came into it before anybody looked must not be taken for old.

"Now" must not depend on this machine's clock alone: were it an hour fast, the mail of the next hour
would be taken for old. Where FleetPrompt was reached, its clock says what time it is. Else it is the
arrival of the newest mail, if that lies before this clock's time (a mail may claim to be from the
future). Of the hour before, each mail is known by identity.
"""

from collections.abc import Sequence

from fleetprompt_edge.clock import Clock
from fleetprompt_edge.errors import FolderGoneError
from fleetprompt_edge.imap.session import Examined, Session
from fleetprompt_edge.ingest.reader import LOOKED_FOR_SINCE, WINDOW, Watched
from fleetprompt_edge.profile import Mailbox
from fleetprompt_edge.store import Store

MARGIN = 3600  # seconds
_EXCLUDED = "excluded_folders"  # note


def begin(
    session: Session,
    store: Store,
    clock: Clock,
    watched: Sequence[Watched],
    *,
    mailbox: Mailbox | None = None,
    ahead: float | None = None,
) -> None:
    """Give every folder that was never looked at its beginning; folders that are not there wait.

    ``mailbox``: what the profile says, of which entries may mean nothing yet. ``ahead``: by how many seconds
    this clock is ahead of FleetPrompt's; None where that is not known.
    """
    wanted = {one.entry for one in watched}
    excluded = ""
    if mailbox is not None:
        wanted |= {*mailbox.folders, *mailbox.processed_labels}
        excluded = "\n".join(mailbox.exclude_folders)
    with store.transaction():
        looked_for = store.notes.under(LOOKED_FOR_SINCE)
        if (store.notes.get(_EXCLUDED) or "") != excluded:
            # What was nobody's business until now is not told afterwards.
            looked_for = {}
        for entry in looked_for.keys() - wanted:
            store.notes.remove(LOOKED_FOR_SINCE + entry)
        unknown = wanted - looked_for.keys()
        fresh = [
            one for one in watched if one.entry in unknown and store.ledger.folder(one.name) is None
        ]
    if not unknown:
        return
    examined: dict[str, Examined] = {}
    newest: list[int] = []
    # INBOX always counts: a label's newest mail may be years old.
    for name in dict.fromkeys([*(one.name for one in fresh), "INBOX"]):
        try:
            examined[name] = session.examine(name)
        except FolderGoneError:
            continue
        if ahead is None:
            newest += _newest(session, examined[name], clock)
    now = int(clock.now().timestamp() - (ahead or 0))
    before = min([now, max(newest, default=now)]) - MARGIN
    with store.transaction():
        for entry in unknown:
            store.notes.put(LOOKED_FOR_SINCE + entry, str(before))
        store.notes.put(_EXCLUDED, excluded)
        for one in fresh:
            if one.name in examined:
                there = examined[one.name]
                store.ledger.add_folder(one.name, there.uidvalidity, there.uidnext - 1, before)


def _newest(session: Session, examined: Examined, clock: Clock) -> list[int]:
    """When the newest mail of a folder arrived (epoch s), of those that are not from the future."""
    now = int(clock.now().timestamp())
    newest: list[int] = []
    step = WINDOW if examined.messages > 2 * WINDOW else examined.uidnext
    for first in range(1, examined.uidnext, step):
        for seen in session.scan(first, min(first + step, examined.uidnext) - 1):
            if seen.arrived is not None and seen.arrived <= now:
                newest = [max([*newest, seen.arrived])]
    return newest
