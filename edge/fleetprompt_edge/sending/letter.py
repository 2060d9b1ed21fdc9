"""The mail as it goes to Bridge.

Bridge keeps the Message-ID and shows it among the sent mail; every header of ours it would drop
(research/edge.md §0.3). So the Message-ID, made of the directive alone, is how a mail is found again.
"""

import hashlib
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from fleetprompt_edge.sending.order import Order

# A Message-ID may be long and has no place to fold: at the usual 78 it would be written as encoded words.
_POLICY = SMTP.clone(max_line_length=998, cte_type="7bit")


def message_id_of(organization_id: str, directive_id: str, sender: str) -> str:
    """The one Message-ID that a directive's mail ever has."""
    found = hashlib.sha256(f"{organization_id}:{directive_id}".encode()).hexdigest()[:40]
    return f"<fp.{found}@{sender.rpartition('@')[2].lower()}>"


def letter(order: Order, message_id: str, at: datetime) -> bytes:
    """The whole mail; blind recipients stand in the envelope only."""
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = order.sender
    mail["To"] = ", ".join(order.to)
    if order.cc:
        mail["Cc"] = ", ".join(order.cc)
    mail["Subject"] = order.subject
    mail["Date"] = format_datetime(at)
    mail["Message-ID"] = message_id
    if order.reply_to is not None:
        mail["In-Reply-To"] = order.reply_to
        mail["References"] = order.reply_to
    if order.text is not None:
        mail.set_content(order.text)
        if order.html is not None:
            mail.add_alternative(order.html, subtype="html")
    elif order.html is not None:
        mail.set_content(order.html, subtype="html")
    return mail.as_bytes()
