"""``python -m demo [--once]``: everything from nothing, the main path, and then stay up.

Keeps its state under ``.fleetprompt/`` (``FLEETPROMPT_STATE_DIR``). A second run goes on with what
the first one made and posts nothing twice.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel

from demo.site import chat
from demo.site.server import serving
from demo.story import Api, Told, create_tenant, owner_email, tell
from fleetprompt.db.engine import Database
from fleetprompt.errors import FleetPromptError
from fleetprompt.runtime.platform import Platform, running_platform
from fleetprompt.runtime.ports import PortTakenError
from fleetprompt.runtime.state_lock import AlreadyRunningError, StateLock
from fleetprompt.runtime.supervisor import SupervisorError
from fleetprompt.sessions.service import Sessions
from fleetprompt.settings import Settings
from fleetprompt.tenants.key_service import KeyRequest, issue_key
from fleetprompt.tenants.members import find_member
from fleetprompt.tenants.service import get_tenant

TENANTS = (("acme", "Acme", "Europe/Berlin"), ("harbor", "Harbor", "America/New_York"))
console = Console(soft_wrap=True)


class Memory:
    """What the demo must know again the next time: its keys and the stand-in's address.

    A file that only this user may read, beside the master key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.values: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, name: str, value: Any) -> None:
        """Remember ``value``."""
        self.values[name] = value
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            json.dump(self.values, file)


def say(text: str) -> None:
    """One line of progress."""
    console.print(f"[cyan]demo[/]  {text}")


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As servers do, so that a port which a former run has just left counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


@contextlib.contextmanager
def stand_in(memory: Memory) -> Iterator[tuple[str, str]]:
    """A local Mattermost stand-in; gives its page and its webhook's URL."""
    port = _free_port(memory.values.get("mattermost_port", 8065))
    memory.keep("mattermost_port", port)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.mattermost", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    try:
        assert process.stdout is not None
        page = process.stdout.readline().partition(": ")[2].strip()
        hook = process.stdout.readline().partition(": ")[2].strip()
        yield page, hook
    finally:
        process.terminate()
        process.wait(10)


async def _operator_key(settings: Settings) -> str:
    async with Database.application(settings) as database, database.platform() as session:
        tenant = await get_tenant(session, settings.operations_tenant)
        request = KeyRequest(kind="user", name="demo operator", role="owner")
        return (await issue_key(session, settings, tenant, request))[1]


async def _console_link(settings: Settings, slug: str) -> str:
    """A link that signs the tenant's owner in to the console, once and soon."""
    async with Database.application(settings) as database:
        async with database.platform() as session:
            tenant = await get_tenant(session, slug)
            owner = await find_member(session, tenant, owner_email(slug))
        token = await Sessions(database, settings).make_link(tenant, owner.user_id)
    return f"{settings.api_url}/console/link/{token}"


def _keys(platform: Platform, memory: Memory) -> dict[str, str]:
    """The operator's key and each tenant's owner key, made when this is the first run."""
    keys: dict[str, str] = memory.values.get("keys", {})
    if "operator" not in keys:
        keys["operator"] = asyncio.run(_operator_key(platform.settings))
        memory.keep("keys", keys)
    operator = Api(platform.urls["api"], keys["operator"])
    for slug, name, _ in TENANTS:
        if slug not in keys:
            keys[slug] = create_tenant(operator, slug, name)
            memory.keep("keys", keys)
            say(f"tenant {slug} created")
    operator.close()
    return keys


def _show(slug: str, told: Told) -> None:
    # Mattermost keeps line breaks, which Markdown elsewhere wants marked.
    text = "  \n".join(told.digest.splitlines())
    panel = Panel(Markdown(text), title=f"the digest of {slug}, as posted", width=100)
    console.print(panel, soft_wrap=False)
    state = "was posted by an earlier run" if told.already_posted else "posted"
    say(f"{slug}: {state}; run now took {told.run_now_seconds:.1f} s")
    say(f"  directive  {told.directive['type']} {told.directive['id']}: {told.directive['state']}")
    say(f"  execution  {told.execution['id']}: {told.execution['state']}")
    say(f"  signals    {', '.join(told.signal_types)}")


def _settings() -> Settings:
    # The stand-in is on loopback and speaks plain HTTP; a real deployment allows neither.
    changes: dict[str, Any] = {
        "allow_plain_http": True,
        "allowed_private_networks": ["127.0.0.0/8"],
    }
    if os.environ.get("FLEETPROMPT_LOG_LEVEL") is None:
        changes["log_level"] = "WARNING"
    if not os.environ.get("FLEETPROMPT_DATABASE_URL"):
        changes["database_url"] = None
    for name, port in (("api_port", 8000), ("dagster_port", 3000), ("code_server_port", 4000)):
        if f"FLEETPROMPT_{name.upper()}" not in os.environ:
            changes[name] = _free_port(port)
    return Settings(**changes)


def run(once: bool) -> None:
    """The demo from start to end."""
    begun = time.monotonic()
    settings = _settings()
    with StateLock(settings.state_dir):
        pass  # Nothing is changed beside a demo that runs: neither its log nor what it remembers.
    memory = Memory(settings.state_dir / "demo.json")
    log = settings.state_dir / "demo.log"
    say(f"starting PostgreSQL, the API and Dagster (log: {log})")
    with (
        stand_in(memory) as (page, hook),
        log.open("w") as stream,
        running_platform(settings, log_stream=stream) as platform,
    ):
        say(f"all ready after {time.monotonic() - begun:.1f} s")
        keys = _keys(platform, memory)
        first: float | None = None
        for slug, _, zone in TENANTS:
            api = Api(platform.urls["api"], keys[slug])
            told = tell(api, slug, hook, zone, say)
            api.close()
            _show(slug, told)
            if first is None and not told.already_posted:
                first = time.monotonic() - begun
                console.print(f"[bold green]first digest posted after {first:.1f} s[/]")
        posted = len(_posts(page))
        say(f"the stand-in holds {posted} posts of this run: {page}")
        if not once:
            with _shop(platform, memory, keys["acme"]) as shop:
                _stay(platform, page, hook, keys, shop)


def _posts(page: str) -> list[Any]:
    return list(httpx.get(f"{page.rstrip('/')}/_double/posts").json())


@contextlib.contextmanager
def _shop(platform: Platform, memory: Memory, key: str) -> Iterator[str]:
    """Acme's sample website with the chat on it; gives its address."""
    port = _free_port(memory.values.get("shop_port", 8090))
    memory.keep("shop_port", port)
    chat.build_widget(say)
    api = Api(platform.urls["api"], key)
    lines = chat.snippet(api, f"http://127.0.0.1:{port}")
    api.close()
    with serving(port, platform.settings.api_url, lines) as shop:
        yield shop


def _stay(platform: Platform, page: str, hook: str, keys: dict[str, str], shop: str) -> None:
    console.rule("up until Ctrl-C")
    for name, url in (
        *platform.urls.items(),
        *(("mattermost", page), ("webhook", hook), ("website", shop)),
    ):
        console.print(f"  {name:<12}{url}")
    console.print(f"  operator's key: {keys['operator']}")
    console.print(f"  acme's key:     {keys['acme']}")
    link = asyncio.run(_console_link(platform.settings, "acme"))
    console.print(f"  sign in to acme's console, once: {link}")
    console.print(f"  chat with yourself: on {shop} and in {platform.urls['api']}/support/webchat")
    with contextlib.suppress(KeyboardInterrupt):
        platform.wait()


def main() -> None:
    """Read the arguments and run."""
    # A stop from outside unwinds like Ctrl-C, so that nothing that was started stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser(prog="python -m demo")
    parser.add_argument("--once", action="store_true", help="end after the first digests")
    arguments = parser.parse_args()
    try:
        run(arguments.once)
    except (SupervisorError, PortTakenError, AlreadyRunningError, FleetPromptError) as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()
