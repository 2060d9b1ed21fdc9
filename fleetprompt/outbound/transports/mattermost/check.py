"""Is this webhook good? Asked without posting (contract A9).

The server checks in a fixed order: webhooks enabled, a text is there, the webhook is known, the
channel exists, … So a message for a channel that cannot exist gets as far as the channel only
with a good webhook: 404 says good, 400 says unknown, 501 says switched off.
"""

import json
import secrets
from dataclasses import dataclass
from typing import Literal

from fleetprompt.outbound.http import (
    ConnectFailedError,
    OutboundClient,
    OutboundError,
    RefusedError,
    Reply,
)
from fleetprompt.outbound.replies import is_page
from fleetprompt.outbound.transports.mattermost.message import WebhookUrl
from fleetprompt.outbound.transports.mattermost.post import JSON_HEADERS, classify

Verdict = Literal[
    "good",
    "unknown_webhook",
    "webhooks_disabled",
    "forbidden",
    "not_mattermost",
    "redirected",
    "rate_limited",
    "refused",
    "unreachable",
    "no_clear_answer",
]

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Check:
    """The diagnosis of one webhook URL; ``message`` says in plain words what to do."""

    verdict: Verdict
    message: str
    http_status: int | None = None

    @property
    def ok(self) -> bool:
        """Whether messages can be posted through this webhook."""
        return self.verdict == "good"


async def check_webhook(client: OutboundClient, url: WebhookUrl) -> Check:
    """Send the probe and read the answer's status; posts nothing on a Mattermost server."""
    channel = "fp-probe-" + "".join(secrets.choice(_ALPHABET) for _ in range(26))
    probe = json.dumps({"text": "probe", "channel": channel}).encode()
    try:
        reply = await client.request("POST", url.reveal(), headers=JSON_HEADERS, content=probe)
    except RefusedError as error:
        return Check("refused", error.reason)
    except ConnectFailedError as error:
        return Check("unreachable", f"{url.host} could not be reached: {error.reason}")
    except OutboundError as error:
        return Check("no_clear_answer", f"{url.host} gave no answer: {error.reason}")
    return _diagnose(reply)


def _diagnose(reply: Reply) -> Check:
    status = reply.status
    if 300 <= status < 400:
        return Check("redirected", classify(reply).message, status)
    if is_page(reply):
        return Check(
            "not_mattermost",
            "A web page answered, not Mattermost's webhook. Check the address: a server under a "
            "path needs that path before /hooks/, and a proxy must let /hooks/ pass.",
            status,
        )
    match status:
        case 404:
            return Check("good", "The webhook works; nothing was posted.", status)
        case 400:
            return Check("unknown_webhook", classify(reply).message, status)
        case 501:
            return Check("webhooks_disabled", classify(reply).message, status)
        case 401 | 403:
            return Check("forbidden", classify(reply).message, status)
        case 429:
            return Check("rate_limited", "The server is limiting requests; check later.", status)
    if 200 <= status < 300:
        return Check(
            "no_clear_answer",
            "The server took a message for a channel that does not exist, so it is not "
            "Mattermost, and the word 'probe' may have been posted.",
            status,
        )
    return Check("no_clear_answer", f"The server answered with status {status}.", status)
