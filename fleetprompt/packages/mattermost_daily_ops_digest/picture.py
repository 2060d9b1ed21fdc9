"""The picture that goes along with a digest: the same bars as by e-mail."""

from collections.abc import Mapping
from typing import Any

from fleetprompt.outbound.transports.mattermost import Attachment
from fleetprompt.packages.digest.chart import Bar, draw
from fleetprompt.packages.mattermost_daily_ops_digest.config import Config

# Mattermost shows it above the picture, and screen readers read it.
_NAME = "Signals above, errors below, until {day}.png"


def wants_picture(config: Config) -> bool:
    """Whether digests of this configuration come with one: a webhook cannot attach it."""
    return config.mode == "bot" and config.attach_trend


def picture_of(config: Config, kept: Mapping[str, Any]) -> Attachment | None:
    """The picture of what the digest's execution ``kept``; None for an empty day or a first one."""
    bars = [Bar.from_json(one) for one in kept.get("bars", [])]
    if not wants_picture(config) or kept.get("empty") or len(bars) < 2:
        return None
    return Attachment(_NAME.format(day=bars[-1].day), draw(bars))
