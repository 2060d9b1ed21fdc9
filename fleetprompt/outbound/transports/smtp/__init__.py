"""Mail: what a letter is, and its submission to a mail server."""

from fleetprompt.outbound.transports.smtp.letter import Audience, Letter, Picture, same_address
from fleetprompt.outbound.transports.smtp.server import SmtpServer, unseal_smtp
from fleetprompt.outbound.transports.smtp.submit import check_smtp, submit

__all__ = [
    "Audience",
    "Letter",
    "Picture",
    "SmtpServer",
    "check_smtp",
    "same_address",
    "submit",
    "unseal_smtp",
]
