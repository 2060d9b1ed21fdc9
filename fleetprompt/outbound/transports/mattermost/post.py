"""Posting through an incoming webhook, judged by the status alone (contract A2, A5, A6).

The body of an error repeats the webhook's id, which is its password, so it is neither stored nor
logged nor looked at; only a success is told by its body, which must be exactly ``ok``.
"""

from fleetprompt.outbound.http import (
    ConnectFailedError,
    OutboundClient,
    RefusedError,
    Reply,
    ResponseLostError,
)
from fleetprompt.outbound.outcome import Outcome
from fleetprompt.outbound.replies import is_page, retry_after
from fleetprompt.outbound.transports.mattermost.message import WebhookMessage, WebhookUrl

JSON_HEADERS = {"Content-Type": "application/json"}

# Definite refusals: the server answers these before it saves anything.
_AUTH = {
    400: "Mattermost does not know this webhook; it may have been deleted. Make a new incoming "
    "webhook and save its URL here.",
    401: "Something in front of Mattermost asks for a login. Let requests to /hooks/ pass.",
    403: "The webhook may not post there: it may be locked to its own channel, or its owner may "
    "have left the channel. Choose the webhook's channel, or let a member make a new webhook.",
}
_VALIDATION = {
    404: "The channel was not found in the webhook's team: it may be archived, renamed or in "
    "another team. Use the name from the channel's URL.",
    413: "The message is larger than the server takes. Shorten it, or raise "
    "MaximumPayloadSizeBytes.",
    501: "Incoming webhooks are switched off on this server. An administrator can enable them "
    "under Integrations.",
}
_NOT_MATTERMOST = (
    "A web page answered instead of Mattermost's webhook. Check the URL: a server under a path "
    "needs that path before /hooks/, and a proxy must let /hooks/ pass."
)
_REDIRECTED = (
    "The server redirected the request, which was not followed. Use the address that Mattermost "
    "has as its Site URL, with https:// and its path."
)
_PERHAPS_POSTED = "The message may or may not have been posted; look into the channel."


async def post_webhook(
    client: OutboundClient,
    url: WebhookUrl,
    message: WebhookMessage,
    *,
    not_after: float | None = None,
) -> Outcome:
    """Send the message once and say what became of it; never raises for the other side's doing.

    ``not_after`` is as in ``OutboundClient.request``.
    """
    try:
        reply = await client.request(
            "POST",
            url.reveal(),
            headers=JSON_HEADERS,
            content=message.payload(),
            not_after=not_after,
        )
    except RefusedError as error:
        return Outcome("rejected", "validation", error.reason)
    except ConnectFailedError as error:
        return Outcome(
            "retryable",
            "network",
            f"Mattermost could not be reached: {error.reason} It will be tried again.",
        )
    except ResponseLostError as error:
        return Outcome(
            "unknown", "network", f"The answer was lost: {error.reason} {_PERHAPS_POSTED}"
        )
    return classify(reply)


def classify(reply: Reply) -> Outcome:
    """The outcome that an answer stands for."""
    status = reply.status
    if is_accepted(reply):
        return Outcome("posted", http_status=status)
    if 200 <= status < 300:
        return _odd_success(reply)
    if 300 <= status < 400:
        return Outcome("rejected", "validation", _REDIRECTED, status)
    if status == 429:
        return Outcome(
            "retryable",
            "rate_limit",
            "Mattermost is limiting requests; it will be tried again.",
            status,
            retry_after(reply),
        )
    if status == 408:
        return Outcome(
            "retryable", "network", "The server gave up waiting for the request.", status
        )
    if status in (400, 403, 404, 405) and is_page(reply):
        return Outcome("rejected", "validation", _NOT_MATTERMOST, status)
    if status in _AUTH:
        return Outcome("rejected", "auth", _AUTH[status], status)
    if status < 500 or status == 501:
        other = f"The server refused the message with status {status}."
        return Outcome("rejected", "validation", _VALIDATION.get(status, other), status)
    return Outcome(
        "unknown", "network", f"The server failed with status {status}. {_PERHAPS_POSTED}", status
    )


def is_accepted(reply: Reply) -> bool:
    """The one shape of success: 200, ``text/plain``, a body of exactly ``ok``."""
    whole = reply.body_complete and reply.body == b"ok"
    return reply.status == 200 and reply.media_type == "text/plain" and whole


def _odd_success(reply: Reply) -> Outcome:
    if is_page(reply):
        return Outcome("rejected", "validation", _NOT_MATTERMOST, reply.status)
    return Outcome(
        "unknown",
        "unknown",
        f"The answer is not the one that Mattermost gives. {_PERHAPS_POSTED}",
        reply.status,
    )
