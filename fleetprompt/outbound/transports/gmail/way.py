"""A letter's way: Gmail where it is connected, a mail server where not or where Gmail says no.

By Gmail (docs/decisions/mail-once.md):

1. A draft is made, and its id noted in the ledger before anything is sent. A later attempt writes the
   same draft anew: Gmail sends a draft once, however often and late it is asked to. If it is gone, it
   was sent. A draft that the ledger names is never deleted, so that nothing else makes it go.
2. The recipients are asked for once more; if one has gone, the draft is not sent.
3. The draft is sent. If the answer is lost, the draft tells: still there, not sent; gone, sent.

The mail server takes over only where Gmail has certainly not taken the letter: no token, no draft,
no connection, or a draft that Gmail refuses to send. Never after a doubt, and never because Gmail
asks to wait (trap 36). What a mail server's lost answer means nobody can look up.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fleetprompt.errors import ErrorKind
from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.ledger import Mark
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.sighting import Sighting
from fleetprompt.outbound.transports.gmail.account import GmailAccount
from fleetprompt.outbound.transports.gmail.drafts import Mailbox, open_mailbox
from fleetprompt.outbound.transports.smtp import (
    Audience,
    Letter,
    SmtpServer,
    same_address,
    submit,
)

_NOBODY = "There is no active admin to send it to."
_GONE = "Gmail has taken the draft of an earlier attempt; it will be entered as sent."
_CHANGED = "Somebody is no longer an admin; it will be addressed anew."


@dataclass(frozen=True, slots=True)
class Earlier:
    """What an earlier attempt left: the draft, whose it is, and whether it was certainly not sent.

    ``refused``: Gmail would not send it, so a mail server may.
    """

    draft: str
    author: str
    certain: bool
    refused: bool


@dataclass
class MailWay:
    """One letter; ``audience`` is asked at each step that needs it, so that it is that moment's.

    ``repeated`` says that there was an attempt before; ``refused`` is set when Gmail certainly did not
    take the letter though it was asked to send it. ``went_by`` names what carried it.
    """

    client: OutboundClient
    letter: Letter
    audience: Callable[[], Awaitable[Audience]]
    gmail: GmailAccount | None
    smtp: SmtpServer | None
    earlier: Earlier | None = None
    repeated: bool = False
    refused: bool = False
    went_by: str | None = None
    recipients: int = 0
    _box: Mailbox | None = field(default=None, repr=False)
    _draft: str = field(default="", repr=False)
    _drafted: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def can_look(self) -> bool:
        """Where Gmail is connected, its drafts can be looked at."""
        return self.gmail is not None

    @property
    def known_mark(self) -> Mark | None:
        """Whom it goes to is asked each time."""
        return None

    async def prepare(self) -> Mark | Outcome:
        """A draft by Gmail, else nothing: a mail server is spoken to when it is time to send."""
        audience = await self._audience()
        if isinstance(audience, Outcome):
            return audience
        self._box = None
        if self.gmail is None or (self.earlier is not None and self.earlier.refused):
            return Mark() if self.smtp is not None else _unconnected()
        drafted = await self._draft_for(self.gmail, audience)
        if isinstance(drafted, Mark):
            return drafted
        if self.earlier is not None and not self.earlier.certain:
            # The doubt goes on: whatever is wrong, only Gmail can end it.
            kind: ErrorKind = "rate_limit" if drafted.error_kind == "rate_limit" else "network"
            return Outcome("unknown", kind, f"A draft is still in doubt. {drafted.message}")
        return Mark() if self.smtp is not None and _may_fall_back(drafted) else drafted

    async def send(self, key: str, not_after: float) -> Outcome:
        """Send the draft, or hand the letter to the mail server; ``prepare`` goes before."""
        audience = await self._audience()
        if isinstance(audience, Outcome):
            return audience
        self.recipients = len(audience.recipients)
        if self._box is None:
            return await self._submit(audience, not_after)
        if not self._drafted <= _addressed(audience):
            return Outcome("retryable", "network", _CHANGED)
        self.went_by = "gmail"
        outcome = await self._box.send(self._draft, not_after=not_after)
        if outcome.state == "rejected" and self.smtp is not None:
            self.refused = True
            return Outcome("retryable", outcome.error_kind, outcome.message, outcome.http_status)
        return outcome

    async def look(self, key: str, mark: Mark) -> Sighting:
        """Look at the draft that ``mark`` names, in its author's mailbox."""
        assert self.gmail is not None  # noqa: S101 - can_look
        box = await open_mailbox(self.client, self.gmail, mark.author or "")
        seen = box if isinstance(box, Outcome) else await box.look(mark.place or "")
        if isinstance(seen, Outcome):
            return Sighting(None, False, seen.error_kind, seen.message, seen.retry_after_seconds)
        if seen == "there":
            self.earlier = Earlier(
                mark.place or "", mark.author or "", certain=False, refused=False
            )
            return Sighting(None, True)
        sent = seen.removeprefix("sent:") if seen != "gone" else f"draft:{mark.place}"
        self.went_by = "gmail"
        return Sighting(sent, True)

    def permalink(self, remote_id: str) -> str | None:
        """Letters have no address that others could open."""
        return None

    async def _audience(self) -> Audience | Outcome:
        """Who it is from and to at this moment; an Outcome where there is nobody."""
        found = await self.audience()
        if found.sender is None or not found.recipients:
            return Outcome("rejected", "validation", _NOBODY)
        return found

    async def _draft_for(self, gmail: GmailAccount, audience: Audience) -> Mark | Outcome:
        """The letter as a draft: the earlier one written anew, else a new one."""
        earlier = self.earlier
        # A letter keeps the sender of its draft: it can be in no other mailbox.
        author = earlier.author if earlier else audience.sender or ""
        box = await open_mailbox(self.client, gmail, author)
        if isinstance(box, Outcome):
            return box
        try:
            message = self.letter.compose(Audience(author, audience.recipients))
        except ValueError:
            return _unwritable()
        draft: str | Outcome | None = None
        if earlier is not None:
            draft = await box.rewrite(earlier.draft, message)
            if draft is None and not earlier.certain:
                return Outcome("unknown", "network", _GONE)
        if draft is None:
            if self.repeated:
                # What a lost answer or a killed attempt left was never sent: its id was not known.
                for orphan in await box.find(self.letter.token):
                    await box.withdraw(orphan)
            draft = await box.create(message)
        if isinstance(draft, Outcome):
            return draft
        self._box, self._draft, self._drafted = box, draft, _addressed(audience)
        return Mark(place=draft, author=author)

    async def _remove_refused(self) -> None:
        """Take away the draft that Gmail would not send; the ledger does not name it any more."""
        if self.gmail is None or self.earlier is None:
            return
        box = await open_mailbox(self.client, self.gmail, self.earlier.author)
        if isinstance(box, Mailbox):
            await box.withdraw(self.earlier.draft)

    async def _submit(self, audience: Audience, not_after: float) -> Outcome:
        assert self.smtp is not None  # noqa: S101 - prepare has seen to it
        assert audience.sender is not None  # noqa: S101 - _audience has checked
        try:
            message = self.letter.compose(audience)
        except ValueError:
            return _unwritable()
        self.went_by = "smtp"
        outcome = await submit(
            self.client,
            self.smtp,
            message,
            audience.sender,
            audience.recipients,
            not_after=not_after,
        )
        if outcome.state == "posted":
            await self._remove_refused()
        return outcome


def _may_fall_back(outcome: Outcome) -> bool:
    return outcome.error_kind != "rate_limit"


def _addressed(audience: Audience) -> frozenset[str]:
    return frozenset(same_address(one) for one in audience.recipients)


def _unconnected() -> Outcome:
    words = "No mail server and no Gmail is connected."
    return Outcome("rejected", "validation", words)


def _unwritable() -> Outcome:
    return Outcome("rejected", "validation", "An address cannot stand in a letter's header.")
