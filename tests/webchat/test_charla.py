"""Charla's lines as text: what they hold cannot break out (in a browser: tests/widget/test_charla.py)."""

from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest

from fleetprompt.errors import ConflictError
from fleetprompt.webchat.charla import charla_snippet
from fleetprompt.webchat.models import ChatSite
from fleetprompt.webchat.site_settings import SiteSettings
from fleetprompt.webchat.tenant_settings import ChatSettings

SCRIPT = "https://widget.charla.example/chat.js?v=1"
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "'\"`${alert(1)}\\",
    "line\u2028separator\u2029 & <img src=x onerror=alert(1)>",
    "]]></script >",
]


class Scripts(HTMLParser):
    """The elements that a browser makes of the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


def site(**changed: Any) -> ChatSite:
    settings = {"charla_property_key": "prop-7", "title": "Chat", **changed.pop("settings", {})}
    checked = SiteSettings.model_validate(settings).model_dump(mode="json", exclude_defaults=True)
    values: dict[str, Any] = {
        "id": UUID(int=7),
        "site_key": "fp_pub_canary",
        "name": "Shop",
        "status": "active",
        "mode": "charla_embed",
        "origins": ["https://shop.example", "https://*.brand.example"],
        "settings": checked,
        "inserted_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return ChatSite(**{**values, **changed})


CHAT = ChatSettings(
    charla_script_url=SCRIPT, email_to=("chat@team.example",), charla_object="CharlaSettings"
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_trap_45_what_a_tenant_writes_is_text_in_the_lines(hostile: str) -> None:
    consent = {"version": "2", "text": hostile, "link": "https://shop.example/p?a=1&b='\"<x>"}
    lines = charla_snippet(site(name=hostile, settings={"title": None, "consent": consent}), CHAT)
    assert "\u2028" not in lines
    found = Scripts()
    found.feed(lines)
    assert found.tags == ["script"]


def test_no_secret_no_site_key_and_no_setting_of_the_tenant_is_in_the_lines() -> None:
    lines = charla_snippet(site(settings={"notify": None, "token_seconds": 600}), CHAT)
    for leaked in ("fp_pub_canary", "team.example", "token", str(UUID(int=7)), "Nordwind"):
        assert leaked not in lines


@pytest.mark.parametrize(
    ("changed", "chat", "words"),
    [
        ({"mode": "native"}, CHAT, "widget"),
        ({"status": "disabled"}, CHAT, "switched off"),
        ({"origins": []}, CHAT, "No address"),
        ({}, ChatSettings(), "Charla's script"),
        ({"settings": {"charla_property_key": None}}, CHAT, "charla_property_key"),
    ],
)
def test_lines_that_could_not_work_are_not_made(
    changed: dict[str, Any], chat: ChatSettings, words: str
) -> None:
    with pytest.raises(ConflictError, match=words):
        charla_snippet(site(**changed), chat)
