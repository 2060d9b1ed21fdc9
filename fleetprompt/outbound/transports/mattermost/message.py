"""What is posted and where to: the webhook's URL, the channel's name, the message (A1, A3, A8)."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from fleetprompt.errors import InvalidError
from fleetprompt.outbound.target import RefusedError, parse_target

TEXT_LIMIT = 15_000
"""Runes; the server splits above 16,383, and its rewriting may lengthen a text."""
_PROPS_LIMIT = 32_000
_NAME_LIMIT = 64

_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*/hooks/[A-Za-z0-9]{26}")
_COMMAND_PATH = re.compile(r".*/hooks/commands(?:/.*)?")
_CHANNEL = re.compile(r"[a-z0-9]+([a-z\-_0-9]+|(__)?)[a-z0-9]*")
_GROUP_CHANNEL = re.compile(r"[0-9a-f]{40}")
_DIRECT_CHANNEL = re.compile(r"[a-z0-9]{26}__[a-z0-9]{26}")
# The server writes these itself, or reads them as something else than the sender's own data.
_RESERVED_PROPS = frozenset(
    {
        "attachments",
        "card",
        "from_webhook",
        "override_icon_emoji",
        "override_icon_url",
        "override_username",
        "webhook_display_name",
    }
)


@dataclass(frozen=True, repr=False)
class WebhookUrl:
    """An incoming webhook's URL, which is a password: only ``reveal`` gives it away."""

    host: str
    _url: str

    def reveal(self) -> str:
        """The URL itself, for the request and for sealing it."""
        return self._url

    def __repr__(self) -> str:
        """``WebhookUrl('chat.example.org/hooks/***')``, without the path before it."""
        return f"WebhookUrl('{self}')"

    def __str__(self) -> str:
        """The host and that it is a webhook."""
        return f"{self.host}/hooks/***"


def parse_webhook_url(text: str, *, allow_plain_http: bool = False) -> WebhookUrl:
    """Read a webhook's URL as Mattermost shows it; the server may live under a path.

    Raises ``InvalidError`` that says what to change and never repeats the URL. Whether the host may
    be reached is decided when it is (``fleetprompt.outbound.http``).
    """
    text = text.strip()
    try:
        target = parse_target(text, allow_plain_http=allow_plain_http)
    except RefusedError as error:
        raise InvalidError(f"This is not a usable webhook URL. {error.reason}") from None
    if "?" in text or "#" in text:
        raise InvalidError("A webhook URL has neither a ? nor a # part; leave it out.")
    if target.path.endswith("/"):
        raise InvalidError("The webhook URL ends with a slash; leave it out.")
    if _COMMAND_PATH.fullmatch(target.path):
        raise InvalidError(
            "This is the reply URL of a slash command. Make an incoming webhook: "
            "Integrations, Incoming Webhooks, Add."
        )
    if not _PATH.fullmatch(target.path):
        raise InvalidError(
            "A Mattermost webhook URL ends with /hooks/ and 26 letters and digits. Copy it whole "
            "from Integrations, Incoming Webhooks."
        )
    return WebhookUrl(target.host, f"{target.scheme}://{target.host_header}{target.path}")


def parse_channel(text: str) -> str:
    """The channel's name as its URL shows it, with or without a leading ``#``.

    Raises ``InvalidError`` for a display name, a direct message or anything else that the server
    would not find.
    """
    name = text.strip().removeprefix("#")
    if name.startswith("@"):
        raise InvalidError("Direct messages are not supported; name a channel.")
    if not _CHANNEL.fullmatch(name) or len(name) > _NAME_LIMIT:
        raise InvalidError(
            "A channel's name has 1 to 64 lower-case letters, digits, - and _, as at the end of "
            "the channel's URL; the name shown in the list is another one."
        )
    if _GROUP_CHANNEL.fullmatch(name) or _DIRECT_CHANNEL.fullmatch(name):
        raise InvalidError("This is the name of a direct or group message, not of a channel.")
    return name


@dataclass(frozen=True)
class WebhookMessage:
    """One post. ``text`` is Markdown; ``channel`` overrides the webhook's own channel.

    ``username`` and ``icon_url`` are ignored by servers that do not allow overrides, which is their
    default. ``silent`` posts without notifying; servers before July 2026 ignore it. ``props`` are
    stored with the post. Raises ``InvalidError`` if the server would refuse or split it.
    """

    text: str
    channel: str | None = None
    username: str | None = None
    icon_url: str | None = None
    silent: bool = False
    props: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Judge every field; ``channel`` is brought to its plain form."""
        if not self.text.strip():
            raise InvalidError("The message has no text.")
        if len(self.text) > TEXT_LIMIT:
            raise InvalidError(
                f"The message has {len(self.text):,} characters; {TEXT_LIMIT:,} are the most."
            )
        if self.channel is not None:
            object.__setattr__(self, "channel", parse_channel(self.channel))
        if self.username is not None and not 1 <= len(self.username.strip()) <= _NAME_LIMIT:
            raise InvalidError(f"The user name has 1 to {_NAME_LIMIT} characters.")
        if self.icon_url is not None and not self.icon_url.startswith(("https://", "http://")):
            raise InvalidError("The icon's URL starts with https:// or http://.")
        reserved = sorted(_RESERVED_PROPS & self.props.keys())
        if reserved:
            raise InvalidError(f"The server sets these properties itself: {', '.join(reserved)}.")
        try:
            size = len(json.dumps(self.props, allow_nan=False))
            self.payload()
        except (TypeError, ValueError):
            raise InvalidError("The message cannot be written as JSON in UTF-8.") from None
        if size > _PROPS_LIMIT:
            raise InvalidError(
                f"The properties have {size:,} bytes; {_PROPS_LIMIT:,} are the most."
            )

    def payload(self) -> bytes:
        """The request's body; unset fields are left out."""
        fields: dict[str, Any] = {"text": self.text}
        for name in ("channel", "username", "icon_url"):
            if (value := getattr(self, name)) is not None:
                fields[name] = value
        if self.silent:
            fields["silent"] = True
        if self.props:
            fields["props"] = self.props
        return json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
