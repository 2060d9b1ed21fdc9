"""The chat widget beside public ones from npm: weight, requests, and time of the page's main thread."""

import gzip
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench.report import Bound, Ratio
from bench.widget_pages import Cost, Folder, chromium, cost
from tests.doubles.webchat_api import SITE_KEY, WebchatApi
from tests.widget.checkout import checkout, run

SHADOW = "document.querySelector('fleetprompt-chat')?.shadowRoot"
LOADER = 1024
ALL = 8 * 1024
CHATWOOT = 340 * 1024
"""What Chatwoot lets its loader and its app weigh: the limits in its ``package.json``."""


@dataclass(frozen=True)
class Rival:
    """A widget from npm: how a page embeds it, and what shows that it is there."""

    package: str
    version: str
    embedded: str
    there: str


RIVALS = (
    Rival(
        "@typebot.io/js",
        "0.10.7",
        """<script type="module">import Typebot from "/@typebot.io/js/dist/web.js";
        Typebot.initBubble({ typebot: "bench", apiHost: location.origin });</script>""",
        "document.querySelector('typebot-bubble')?.shadowRoot?.querySelector('button')",
    ),
    Rival(
        "gleap",
        "16.4.0",
        """<script src="/gleap/build/browser/index.js"></script>
        <script>Gleap.initialize("bench"); window.initialized = true;</script>""",
        "window.initialized",
    ),
    Rival(
        "deep-chat",
        "2.4.2",
        """<script type="module" src="/deep-chat/dist/deepChat.bundle.js"></script>
        <deep-chat></deep-chat>""",
        "document.querySelector('deep-chat').shadowRoot?.querySelector('#text-input')",
    ),
)


@dataclass(frozen=True)
class Measured:
    """What was found."""

    ratios: list[Ratio]
    bounds: list[Bound]


def measure(console: Console) -> Measured:
    """Build ours, install theirs, and open a page with each, one after the other."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        ours = checkout(folder)
        run(ours, "npm", "run", "build")
        weights = _weights(ours / "dist")
        packages = _installed(folder / "rivals")
        plain, closed, used, theirs = _visited(ours / "dist", packages)
    for name, one in {
        "no chat": plain,
        "ours, closed": closed,
        "ours, open": used,
        **theirs,
    }.items():
        console.print(
            f"  {name:<24} main thread {one.main_thread:6.1f} ms  longest task "
            f"{one.longest_task:5.0f} ms  scripts {one.script_bytes:>9,} B gzip  "
            f"requests to other hosts {one.foreign}"
        )
    own = max(used.main_thread - plain.main_thread, 0.1)
    lightest = min(theirs, key=lambda name: theirs[name].script_bytes)
    total = max(weight for name, weight in weights.items() if name != "loader")
    return Measured(
        ratios=[
            *(
                Ratio(
                    f"main thread: {name}, until it is there",
                    one.main_thread - plain.main_thread,
                    "ours, open",
                    own,
                    "ms",
                    target=1.0,
                )
                for name, one in theirs.items()
            ),
            Ratio(
                f"weight: {lightest}",
                theirs[lightest].script_bytes,
                "ours, loader and chat",
                used.script_bytes,
                "B gzip",
                10.0,
            ),
        ],
        bounds=[
            Bound(
                "widget, loader and the largest language",
                total,
                "B gzip",
                ALL,
                "Chatwoot's own limits",
                CHATWOOT,
            ),
            Bound("widget, loader", weights["loader"], "B gzip", LOADER),
            Bound(
                "requests to any host but the API's",
                used.foreign,
                "requests",
                0,
                "all three others",
                sum(one.foreign for one in theirs.values()),
            ),
            Bound(
                "longest task of the widget, loaded, opened and used", used.longest_task, "ms", 50
            ),
        ],
    )


def _weights(built: Path) -> dict[str, int]:
    """Bytes after gzip: the loader, and the loader with the chat in each language."""
    loader = len(gzip.compress((built / "loader.js").read_bytes(), 9))
    chats = json.loads((built / "manifest.json").read_text())["chat"]
    return {
        "loader": loader,
        **{
            language: loader + len(gzip.compress((built / chat["file"]).read_bytes(), 9))
            for language, chat in chats.items()
        },
    }


def _installed(folder: Path) -> Path:
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}')
    wanted = [f"{one.package}@{one.version}" for one in RIVALS]
    run(folder, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *wanted)
    return folder / "node_modules"


def _visited(built: Path, packages: Path) -> tuple[Cost, Cost, Cost, dict[str, Cost]]:
    """A page without a chat, ours closed, ours open, and each of the others."""
    api = WebchatApi(built)
    api.start()
    snippet = (
        f'<script async src="{api.origin}/widget/v1/loader.js" data-site="{SITE_KEY}"></script>'
    )
    opened = '<script>FleetPromptChat = [["open"]]</script>'
    pages = {
        "none": ("", "true"),
        "closed": (snippet, "document.querySelector('fleetprompt-chat')"),
        "open": (opened + snippet, f"({SHADOW})?.querySelector('[role=log] p')"),
        **{one.package: (one.embedded, one.there) for one in RIVALS},
    }
    costs = {}
    try:
        with chromium() as browser:
            for name, (embedded, there) in pages.items():
                page = Folder(packages, embedded)
                page.start()
                api.origins.add(page.origin)
                costs[name] = cost(browser, page.origin, {api.origin, page.origin}, there)
                page.stop()
    finally:
        api.stop()
    plain, closed, used = (costs.pop(name) for name in ("none", "closed", "open"))
    return plain, closed, used, costs
