"""Mattermost by incoming webhook: post a message, check a URL without posting, render safely."""

from fleetprompt.outbound.transports.mattermost.check import Check, check_webhook
from fleetprompt.outbound.transports.mattermost.message import (
    TEXT_LIMIT,
    WebhookMessage,
    WebhookUrl,
    parse_channel,
    parse_webhook_url,
)
from fleetprompt.outbound.transports.mattermost.post import post_webhook
from fleetprompt.outbound.transports.mattermost.text import code_span, plain, table_cell

__all__ = [
    "TEXT_LIMIT",
    "Check",
    "WebhookMessage",
    "WebhookUrl",
    "check_webhook",
    "code_span",
    "parse_channel",
    "parse_webhook_url",
    "plain",
    "post_webhook",
    "table_cell",
]
