"""The letters that are sent, made again from what their execution keeps: equal input, equal bytes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from fleetprompt.outbound.transports.smtp import Letter, Picture
from fleetprompt.packages.digest.chart import Bar, draw
from fleetprompt.packages.email_daily_digest import page

TEST_TEXT = (
    "#### FleetPrompt can mail you\n"
    "This is a test that somebody of your organization asked for; the daily digest comes at its time."
)
_WHY = "You get this as an active owner or admin of {tenant}."


def letter_of(kept: Mapping[str, Any], execution_id: UUID) -> Letter:
    """The letter of an execution's ``kept`` text, bars, date and tenant."""
    token = execution_id.hex
    bars = [Bar.from_json(one) for one in kept.get("bars", [])]
    why = _WHY.format(tenant=kept["tenant"])
    return Letter(
        token=token,
        subject=page.subject(kept["text"]),
        text=page.plain(kept["text"], why, token),
        html=page.html(kept["text"], bars, why, token),
        date=datetime.fromisoformat(kept["date"]),
        picture=Picture(page.PICTURE, draw(bars)) if len(bars) > 1 else None,
    )
