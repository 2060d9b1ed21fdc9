"""Puts the chat on the shop's pages, over HTTP alone, as docs/tenant/webchat.md shows it."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.story import PACKAGE, Api

NAME = "Nordwind Shop"
_WIDGET = Path(__file__).parents[2] / "widget"


def build_widget(say: Callable[[str], None]) -> None:
    """Build the widget where it was not yet and Node.js is there; else say what is missing."""
    if (_WIDGET / "dist" / "manifest.json").exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        say(
            "the chat widget is not built, because npm is not installed; the site has its plain page"
        )
        return
    say("building the chat widget")
    for command in (("ci", "--loglevel=error"), ("run", "--silent", "build")):
        done = subprocess.run([npm, *command], cwd=_WIDGET, capture_output=True, check=False)
        if done.returncode != 0:
            say(f"the chat widget could not be built: `npm {command[0]}` in widget/ says why")
            return


def snippet(api: Api, origin: str) -> str:
    """Register the shop's address for the chat, once, and have the lines for its pages."""
    wanted = {
        "name": NAME,
        "origins": [origin],
        "settings": {
            "greeting": "Hello! How can we help you?",
            "theme": {"accent": "#1f6f54"},
            "consent": {"version": "1", "text": "We keep what you write here to answer you."},
            **_notify(api),
        },
    }
    known = _site(api)
    if known is None or known["origins"] != [origin] or known["status"] != "active":
        change = wanted if known is None else {**wanted, "site_id": known["id"]}
        asked = api.call("POST", "/api/v1/webchat/sites", json=change)
        _wait(api, asked["directive_id"])
        known = _site(api)
    if known is None:
        raise RuntimeError("the site was registered and is not there")
    return str(api.call("GET", known["links"]["snippet"])["html"])


def _site(api: Api) -> dict[str, Any] | None:
    listed = api.call("GET", "/api/v1/webchat/sites")["items"]
    return next((dict(one) for one in listed if one["name"] == NAME), None)


def _notify(api: Api) -> dict[str, Any]:
    """The first message of each conversation goes where the digest goes."""
    listed = api.call("GET", "/api/v1/installations")["items"]
    found = next((one["id"] for one in listed if one["package"] == PACKAGE), None)
    return {} if found is None else {"notify": {"installation_id": found}}


def _wait(api: Api, directive_id: str, seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        state = api.call("GET", f"/api/v1/directives/{directive_id}")["state"]
        if state == "succeeded":
            return
        if state in ("failed", "cancelled", "unknown"):
            break
        time.sleep(0.2)
    raise RuntimeError(f"the site was not registered: directive {directive_id}")
