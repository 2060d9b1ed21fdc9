"""A new user's first minutes, by the steps of edge/README.md: an empty folder, then the first signal.

The wheel is installed by ``pip`` with all that it needs into an empty virtual environment, paired by a code,
started, and gets one mail. Platform, IMAP and SMTP server run already, as they do for a customer.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from bench.edge.running import told
from bench.platform import platform, serving
from bench.report import Bound
from tests.doubles.smtp import running_smtp
from tests.edge.connecting import until
from tests.edge.dovecot import PASSWORD, USER, Dovecot, dovecot, mail

MOST_MINUTES = 3.0
_PATIENCE = 300.0
_EDGE = Path(__file__).parents[2] / "edge"


def measure(console: Console) -> list[Bound]:
    """Minutes until the first signal; nothing where ``pip`` finds no packages."""
    with (
        platform() as bench,
        serving(bench, "fleetprompt_api.app:app") as port,
        dovecot() as server,
        running_smtp() as smtp,
        tempfile.TemporaryDirectory() as folder,
    ):
        url = f"http://127.0.0.1:{port}"
        home = Path(folder)
        wheel = _built(home)
        began = time.perf_counter()
        if not _installed(console, home, wheel):
            return []
        installed = time.perf_counter()
        code = _code(url, bench.token)
        _pair(home, url, code, server, smtp.port)
        paired = time.perf_counter()
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [_program(home), "run"], env=_environment(home), stdout=log, stderr=log
            )
        try:
            # What is delivered from now on is new.
            until(lambda: "mailbox open" in (home / "log").read_text(), "the mailbox", _PATIENCE)
            server.deliver(mail("first"))
            until(lambda: told(bench) == 1, "the first signal", _PATIENCE)
            seconds = time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(20)
    console.print(
        f"start: installed after {installed - began:.0f} s, paired after {paired - began:.0f} s, "
        f"first signal after {seconds:.0f} s"
    )
    return [
        Bound("connector: an empty folder to the first signal", seconds / 60, "min", MOST_MINUTES)
    ]


def _built(home: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home / "dist")]
    subprocess.run(build, cwd=_EDGE, check=True, capture_output=True, timeout=120)
    (wheel,) = (home / "dist").glob("*.whl")
    return wheel


def _installed(console: Console, home: Path, wheel: Path) -> bool:
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True, timeout=120)
    pip = str(home / "venv" / "bin" / "pip")
    install = [pip, "install", "--quiet", "--no-cache-dir", str(wheel)]
    if subprocess.run(install, check=False, timeout=_PATIENCE).returncode == 0:
        return True
    console.print("start: left out, since pip finds no packages")
    return False


def _code(url: str, token: str) -> str:
    answer = httpx.post(
        f"{url}/api/v1/connectors",
        json={"label": "Support"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    made: dict[str, Any] = answer.raise_for_status().json()
    return str(made["pairing"]["code"])


def _pair(home: Path, url: str, code: str, server: Dovecot, smtp_port: int) -> None:
    ports = ["--imap-port", str(server.port), "--smtp-port", str(smtp_port)]
    kept = ["--key-file", str(home / "key"), "--fingerprint", server.pin]
    subprocess.run(
        [_program(home), "pair", code, "--url", url, "--username", USER, *ports, *kept],
        input=PASSWORD + "\n",
        text=True,
        env=_environment(home),
        check=True,
        timeout=120,
        stdout=subprocess.DEVNULL,
    )


def _program(home: Path) -> str:
    return str(home / "venv" / "bin" / "fleetprompt-edge")


def _environment(home: Path) -> dict[str, str]:
    """A user of whom nothing is known yet, without a keyring."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
    }
