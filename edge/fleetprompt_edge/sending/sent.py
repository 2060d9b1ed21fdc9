"""Looking among the sent mail for one of ours, which alone proves that it went out.

Bridge puts every mail it sends there by itself, up to a minute late (trap 6). SEARCH would make Bridge
decrypt the whole folder (research/edge.md §2.6), so that only recent mail's headers are read.
"""

import re
from collections.abc import Callable

from fleetprompt_edge.errors import FolderGoneError
from fleetprompt_edge.imap.session import Session

_MARGIN = 86_400  # seconds; by more than that only a wrong clock here differs from the server's
_AT_ONCE = 100
_MESSAGE_ID = re.compile(rb"(?im)^message-id:\s*(<[^>\r\n]+>)")


class SentMail:
    """The folder of sent mail, on a session that is kept for the next question."""

    def __init__(self, open_session: Callable[[], Session]) -> None:
        self._open = open_session
        self._session: Session | None = None

    def has(self, message_id: str, tried_at: int) -> bool:
        """Whether it is there; raises an ``EdgeError`` if nobody can tell."""
        try:
            if self._session is None:
                self._session = self._open()
            return _found(self._session, message_id.encode(), tried_at - _MARGIN)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the session; the next question opens another."""
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _found(session: Session, message_id: bytes, since: int) -> bool:
    folders = [one.name for one in session.folders() if "\\sent" in one.attributes]
    if not folders:
        raise FolderGoneError("The folder of sent mail is not there.")
    for folder in folders:
        session.examine(folder)
        there = list(session.scan(1, None))
        # What was sent lately is near the newest by the server's clock, whatever this one said (trap 36).
        newest = max((one.arrived for one in there if one.arrived is not None), default=since)
        since = min(since, newest - _MARGIN)
        recent = [one for one in there if (one.arrived or since) >= since]
        recent.sort(key=lambda one: one.arrived or since, reverse=True)
        for at in range(0, len(recent), _AT_ONCE):
            names = session.identifiers([one.uid for one in recent[at : at + _AT_ONCE]])
            if any(message_id in _MESSAGE_ID.findall(one) for one in names.values()):
                return True
    return False
