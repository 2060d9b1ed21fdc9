"""A letter's way: Gmail where it is connected, a mail server where not or where Gmail says no.

By Gmail (docs/decisions/mail-once.md):

1. A draft of an earlier attempt is withdrawn; if that draft is gone, it was sent.
2. A draft is made, and its id noted in the ledger before anything is sent.
3. The recipients are asked for once more; if one has gone, the draft is not sent.
4. The draft is sent. If the answer is lost, the draft tells: still there, not sent; gone, sent.

The mail server takes over only where Gmail has certainly not taken the letter: no token, no draft,
no connection, or a draft that Gmail refuses to send. Never after a doubt, and never because Gmail
asks to wait (trap 36). What a mail server's lost answer means nobody can look up.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

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

    async def prepare(self) -> Mark | Outcome:
        """A draft by Gmail, else nothing: a mail server is spoken to when it is time to send."""
        audience = await self._audience()
        if isinstance(audience, Outcome):
            return audience
        self._box = None
        stopped = await self._withdraw_earlier()
        if stopped is not None:
            return stopped
        by_gmail = self.gmail is not None and not (self.earlier and self.earlier.refused)
        if not by_gmail:
            return Mark() if self.smtp is not None else _unconnected()
        drafted = await self._make_draft(audience)
        if isinstance(drafted, Mark):
            return drafted
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

    async def _withdraw_earlier(self) -> Outcome | None:
        """Make sure that no earlier draft can be sent any more; why not, where that is needed."""
        earlier = self.earlier
        if earlier is None or self.gmail is None:
            return None
        box = await open_mailbox(self.client, self.gmail, earlier.author)
        done = box if isinstance(box, Outcome) else await box.withdraw(earlier.draft)
        if earlier.certain or done == "withdrawn":
            return None
        if done == "gone":
            return Outcome("unknown", "network", _GONE)
        assert isinstance(done, Outcome)  # noqa: S101 - the third thing it can be
        # The doubt goes on: whatever is wrong, only Gmail can end it.
        kind = done.error_kind if done.error_kind in ("rate_limit", "network") else "network"
        return Outcome("unknown", kind, f"The draft is still in doubt. {done.message}")

    async def _make_draft(self, audience: Audience) -> Mark | Outcome:
        assert self.gmail is not None  # noqa: S101 - asked before
        assert audience.sender is not None  # noqa: S101 - _audience has checked
        box = await open_mailbox(self.client, self.gmail, audience.sender)
        if isinstance(box, Outcome):
            return box
        if self.repeated:
            # What a lost answer or a killed attempt left behind was never sent: its id was not known.
            for orphan in await box.find(self.letter.token):
                await box.withdraw(orphan)
        try:
            message = self.letter.compose(audience)
        except ValueError:
            return _unwritable()
        draft = await box.create(message)
        if isinstance(draft, Outcome):
            return draft
        self._box, self._draft, self._drafted = box, draft, _addressed(audience)
        return Mark(place=draft, author=audience.sender)

    async def _submit(self, audience: Audience, not_after: float) -> Outcome:
        assert self.smtp is not None  # noqa: S101 - prepare has seen to it
        assert audience.sender is not None  # noqa: S101 - _audience has checked
        try:
            message = self.letter.compose(audience)
        except ValueError:
            return _unwritable()
        self.went_by = "smtp"
        return await submit(
            self.client,
            self.smtp,
            message,
            audience.sender,
            audience.recipients,
            not_after=not_after,
        )


def _may_fall_back(outcome: Outcome) -> bool:
    return outcome.error_kind != "rate_limit"


def _addressed(audience: Audience) -> frozenset[str]:
    return frozenset(same_address(one) for one in audience.recipients)


def _unconnected() -> Outcome:
    words = "No mail server and no Gmail is connected."
    return Outcome("rejected", "validation", words)


def _unwritable() -> Outcome:
    return Outcome("rejected", "validation", "An address cannot stand in a letter's header.")
