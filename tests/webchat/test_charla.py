"""Charla's lines: what they hold cannot break out, and nothing of the vendor happens before consent.

The program runs in Node with as much of a page as it touches.
"""

import json
import subprocess
from collections.abc import Iterator
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
# The page: what is asked of a page, noted; buttons are pressed by their text.
PAGE = """
const log = { loaded: [], stored: [], read: 0, set: null };
const make = (tag) => ({
  tag, style: {}, children: [], listeners: {}, attributes: {},
  setAttribute(name, value) { this.attributes[name] = value; },
  addEventListener(name, act) { this.listeners[name] = act; },
  append(...nodes) {
    this.children.push(...nodes);
    nodes.forEach((one) => (one.parent = this));
    note(nodes);
  },
  replaceChildren(...nodes) { this.children = nodes; },
  remove() { this.parent.children = this.parent.children.filter((one) => one !== this); },
  focus() {},
});
const note = (nodes) => nodes.forEach((one) => one.tag === "script" && log.loaded.push(one.src));
globalThis.window = globalThis;
globalThis.location = { origin: input.origin };
globalThis.localStorage = {
  getItem: (name) => (input.agreed ? "yes" : null),
  setItem: (name) => { if (input.blocked) throw new Error("denied"); log.stored.push(name); },
};
const body = make("body"), head = make("head");
globalThis.document = {
  body, head, createElement: make,
  getElementById: (id) => body.children.find((one) => one.id === id) ?? null,
  addEventListener() { throw new Error("the body is there"); },
};
const find = (node, text) =>
  node.textContent === text ? node : node.children.map((one) => find(one, text)).find(Boolean);
for (let time = 0; time < (input.times ?? 1); time++) (0, eval)(input.program);
for (const text of input.press) find(body, text).listeners.click();
log.set = globalThis[input.object] ?? null;
log.boxes = body.children.length;
log.words = JSON.stringify(body.children.map(function words(one) {
  return [one.textContent ?? "", one.href ?? "", ...one.children.map(words)];
}));
console.log(JSON.stringify(log));
"""


class Scripts(HTMLParser):
    """The elements that a browser makes of the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.program = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.program += data


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


def run(lines: str, *press: str, origin: str = "https://shop.example", **page: Any) -> Any:
    """What a page does with the lines when somebody presses these buttons."""
    found = Scripts()
    found.feed(lines)
    assert found.tags == ["script"]
    given = {
        **{"program": found.program, "origin": origin, "press": press},
        **{"object": "CharlaSettings", **page},
    }
    program = f"const input = {json.dumps(given)};\n{PAGE}"
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def flat(words: Any) -> Iterator[str]:
    """Each text on the page."""
    if isinstance(words, str):
        yield words
    else:
        for one in words:
            yield from flat(one)


def test_nothing_of_the_vendor_is_loaded_or_stored_before_the_visitor_agrees() -> None:
    lines = charla_snippet(site(), CHAT)
    for press in ((), ("Chat",), ("Chat", "Close")):
        found = run(lines, *press)
        assert (found["loaded"], found["stored"], found["set"]) == ([], [], None)
        assert found["boxes"] == 1
    found = run(lines, "Chat", "I agree")
    assert found["loaded"] == [SCRIPT]
    assert found["stored"] == ["charla-consent:1"]
    # What the vendor is told: the key, and nothing of a visitor.
    assert found["set"] == {"property_key": "prop-7"}
    assert found["boxes"] == 0
    assert run(lines, "Chat", "I agree", blocked=True)["loaded"] == [SCRIPT]


def test_who_agreed_is_not_asked_again_and_the_lines_twice_are_one_chat() -> None:
    lines = charla_snippet(site(), CHAT)
    found = run(lines, agreed=True)
    assert (found["loaded"], found["boxes"]) == ([SCRIPT], 0)
    assert run(lines, times=2)["boxes"] == 1


@pytest.mark.parametrize(
    ("origin", "works"),
    [
        ("https://shop.example", True),
        ("https://de.brand.example", True),
        ("https://brand.example", False),
        ("https://a.b.brand.example", False),
        ("https://shop.example.evil.example", False),
        ("http://shop.example", False),
        ("https://shop.example:8443", False),
        ("null", False),
    ],
)
def test_on_pages_that_are_not_on_the_list_nothing_happens(origin: str, works: bool) -> None:
    found = run(charla_snippet(site(), CHAT), origin=origin, agreed=False)
    assert found["boxes"] == int(works)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_trap_45_what_a_tenant_writes_is_text_in_the_lines(hostile: str) -> None:
    consent = {"version": "2", "text": hostile, "link": "https://shop.example/p?a=1&b='\"<x>"}
    lines = charla_snippet(site(name=hostile, settings={"title": None, "consent": consent}), CHAT)
    assert "\u2028" not in lines
    found = run(lines, hostile)
    assert hostile in list(flat(json.loads(found["words"])))
    assert found["loaded"] == []


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
