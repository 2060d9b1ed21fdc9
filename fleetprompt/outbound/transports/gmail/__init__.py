"""Gmail as a user of a Google Workspace, by a service account with domain-wide delegation."""

from fleetprompt.outbound.transports.gmail.account import GmailAccount, unseal_gmail
from fleetprompt.outbound.transports.gmail.check import check_gmail
from fleetprompt.outbound.transports.gmail.way import Earlier, MailWay

__all__ = ["Earlier", "GmailAccount", "MailWay", "check_gmail", "unseal_gmail"]
