"""Mattermost: post through a webhook or as a bot, look for posts, check without posting, render safely."""

from fleetprompt.outbound.transports.mattermost.check import Check, check_webhook
from fleetprompt.outbound.transports.mattermost.files import Attachment
from fleetprompt.outbound.transports.mattermost.message import (
    TEXT_LIMIT,
    WebhookMessage,
    WebhookUrl,
    parse_channel,
    parse_webhook_url,
)
from fleetprompt.outbound.transports.mattermost.post import post_webhook
from fleetprompt.outbound.transports.mattermost.server import Server, parse_server, unseal_server
from fleetprompt.outbound.transports.mattermost.text import code_span, plain, table_cell
from fleetprompt.outbound.transports.mattermost.token_check import check_token
from fleetprompt.outbound.transports.mattermost.ways import BotWay, HybridWay, WebhookWay

__all__ = [
    "TEXT_LIMIT",
    "Attachment",
    "BotWay",
    "Check",
    "HybridWay",
    "Server",
    "WebhookMessage",
    "WebhookUrl",
    "WebhookWay",
    "check_token",
    "check_webhook",
    "code_span",
    "parse_channel",
    "parse_server",
    "parse_webhook_url",
    "plain",
    "post_webhook",
    "table_cell",
    "unseal_server",
]
