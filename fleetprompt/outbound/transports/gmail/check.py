"""Is this key good, and may it act as the sender? Asked without leaving anything in a mailbox."""

from fleetprompt.outbound.http import OutboundClient
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.transports.gmail.account import GmailAccount
from fleetprompt.outbound.transports.gmail.drafts import open_mailbox


async def check_gmail(client: OutboundClient, account: GmailAccount, sender: str | None) -> Outcome:
    """``posted`` if so. Without a sender only the key itself is tried, not the delegation."""
    if sender is None:
        token = await account.token(client, None)
        return token if isinstance(token, Outcome) else Outcome("posted")
    mailbox = await open_mailbox(client, account, sender)
    if isinstance(mailbox, Outcome):
        return mailbox
    return await mailbox.asked() or Outcome("posted")
