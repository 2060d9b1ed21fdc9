"""Which folders the profile means: by name, or by what the server says a folder is for.

Bridge names no SPECIAL-USE capability, yet LIST returns the attributes (research/edge.md §2.3), so the
attributes count and the capability does not.
"""

import re
from collections.abc import Sequence

from fleetprompt_edge.imap.session import Listed
from fleetprompt_edge.ingest.reader import Watched
from fleetprompt_edge.ingest.telling import Role
from fleetprompt_edge.profile import Mailbox

_OUTGOING = frozenset({"\\sent", "\\drafts"})


def watched_folders(mailbox: Mailbox, listed: Sequence[Listed]) -> list[Watched]:
    """The folders to watch, in the profile's order, once each. A name that is not there is kept: it
    may come, and until then it is told as gone. A pattern stands for what is there: `*` for anything."""
    attributes = {one.name: one.attributes for one in listed}
    found: dict[str, Watched] = {}
    for entry in mailbox.folders:
        for name in _named(entry, listed):
            if any(_means(one, name) for one in mailbox.exclude_folders):
                continue
            role: Role = "outgoing" if attributes.get(name, frozenset()) & _OUTGOING else "inbound"
            found.setdefault(name, Watched(name, role, entry))
    for label in mailbox.processed_labels:
        found.setdefault(label, Watched(label, "processed"))
    return list(found.values())


def may_come(mailbox: Mailbox) -> bool:
    """Whether what the profile means depends on which folders there are."""
    return any("*" in entry or entry.startswith("\\") for entry in mailbox.folders)


def _named(entry: str, listed: Sequence[Listed]) -> list[str]:
    if "*" in entry:
        return [one.name for one in listed if one.selectable and _means(entry, one.name)]
    if not entry.startswith("\\"):
        return ["INBOX" if entry.upper() == "INBOX" else entry]
    wanted = entry.lower()
    return [one.name for one in listed if one.selectable and wanted in one.attributes] or [entry]


def _means(pattern: str, name: str) -> bool:
    # A star is all that is special: folders' names may have brackets and question marks.
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL))
