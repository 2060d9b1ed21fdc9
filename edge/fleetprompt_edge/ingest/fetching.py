"""Reading what new mail needs, and getting around messages that cannot be read.

One bad message makes Bridge refuse a whole command (research/edge.md §2.6), so a refused batch is
halved until the bad one stands alone (trap 18).
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from fleetprompt_edge.errors import BridgeRefusedError, EdgeError
from fleetprompt_edge.imap.session import Head, Section, Seen, Session
from fleetprompt_edge.log import logger
from fleetprompt_edge.mail.classify import classified, delivery_status
from fleetprompt_edge.mail.headers import Headers
from fleetprompt_edge.mail.identity import identity, identity_by_name
from fleetprompt_edge.mail.signals import Mail
from fleetprompt_edge.mail.snippet import part_text
from fleetprompt_edge.mail.structure import Part, parts, text_part

T = TypeVar("T")

# Of a text part, to make a snippet: HTML begins with styles, base64 takes a third more.
SNIPPET_BYTES = 8_192
HTML_BYTES = 65_536
REPORT_BYTES = 8_192


def each(
    fetch: Callable[[Sequence[int]], dict[int, T]], uids: Sequence[int]
) -> tuple[dict[int, T], list[int]]:
    """What could be fetched by UID, and which UIDs are refused even when asked for alone."""
    if not uids:
        return {}, []
    try:
        return fetch(uids), []
    except BridgeRefusedError:
        if len(uids) == 1:
            return {}, list(uids)
    half = len(uids) // 2
    found, refused = each(fetch, uids[:half])
    more, more_refused = each(fetch, uids[half:])
    return found | more, refused + more_refused


def identified(
    session: Session, seen: Sequence[Seen], then: Sequence[Seen] = ()
) -> tuple[list[tuple[Seen, bytes]], list[int]]:
    """Each message with the identity of its mail, ascending by UID, and the UIDs that are refused.

    The two fields that nearly every mail has are asked for first; more only of a mail without them.
    ``then``: the messages that will be asked for next.
    """
    ahead = partial(session.identifiers, then=[one.uid for one in then])
    names, refused = each(ahead, [one.uid for one in seen])
    found = {
        one.uid: identity_by_name(names[one.uid], one.arrived, one.size)
        for one in seen
        if one.uid in names
    }
    heads, more_refused = each(session.heads, [uid for uid, name in found.items() if name is None])
    for uid, head in heads.items():
        found[uid] = identity(head, Headers(head.header))
    # Answers come in any order; what is told keeps the mailbox's.
    by_uid = sorted(seen)
    return [(one, name) for one in by_uid if (name := found.get(one.uid))], refused + more_refused


class Fetcher:
    """Reads the parts of new mail that the profile lets out, and no others.

    ``text_bytes``: how much of the text is needed, encoded; 0: the text stays unread. ``unwanted``:
    senders, or domains with their @, in lower case, whose mail is told to nobody.
    """

    def __init__(
        self, *, text_bytes: int, attachments: bool, unwanted: Collection[str] = ()
    ) -> None:
        self._unwanted = frozenset(unwanted)
        self._text_bytes = text_bytes
        self._attachments = attachments

    def wants(self, headers: Headers) -> bool:
        """Whether the sender's mail is told."""
        if not self._unwanted:
            return True
        sender = next(iter(headers.addresses("from")), "").lower()
        return not self._unwanted & {sender, "@" + sender.rpartition("@")[2]}

    def complete(
        self, session: Session, folder: str, new: Sequence[tuple[bytes, Head, Headers]]
    ) -> tuple[list[Mail], list[int]]:
        """The mails in full, and the UIDs of those that Bridge did not hand out."""
        structures: dict[int, list[Part]] = {}
        refused: list[int] = []
        needs_structure = self._text_bytes or self._attachments
        asked = [head.uid for _, head, headers in new if needs_structure or classified(headers)]
        found, refused = each(session.structures, asked)
        structures = {uid: parts(one) for uid, one in found.items()}
        mails = []
        for name, head, headers in new:
            if head.uid in refused:
                continue
            mail = Mail(folder, name, head, headers, structures.get(head.uid, []))
            try:
                mails.append(self._with_text(session, mail))
            except BridgeRefusedError:
                refused.append(head.uid)
            except EdgeError:
                raise
            except Exception:  # noqa: BLE001 - a mail we cannot cope with holds up no other
                logger.exception("a mail could not be read", extra={"uid": head.uid})
                refused.append(head.uid)
        return mails, refused

    @staticmethod
    def bare(folder: str, name: bytes, head: Head, headers: Headers) -> Mail:
        """A mail of which Bridge hands out the header only."""
        found = classified(headers)
        return Mail(folder, name, head, headers, classification=found, complete=False)

    def _with_text(self, session: Session, mail: Mail) -> Mail:
        text = None
        chosen = text_part(mail.parts, "plain") or text_part(mail.parts, "html")
        if chosen is not None and self._text_bytes:
            most = max(self._text_bytes, HTML_BYTES if chosen.content_type == "text/html" else 0)
            raw = session.part(Section(mail.head.uid, chosen.section, most))
            text = part_text(raw, chosen)
        kind = classified(mail.headers)
        if kind and kind["kind"] == "bounce":
            report = next(
                (one for one in mail.parts if one.content_type == "message/delivery-status"), None
            )
            if report is not None:
                raw = session.part(Section(mail.head.uid, report.section, REPORT_BYTES))
                kind = {**kind, **delivery_status(raw)}
        return Mail(mail.folder, mail.identity, mail.head, mail.headers, mail.parts, text, kind)
