"""A connector as a customer runs it: a profile, a key file, a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetprompt_edge.toml_text import new_profile
from fleetprompt_edge.vault.file import FileVault, new_key

from tests.edge.dovecot import PASSWORD, USER, Dovecot
from tests.edge.ingesting import CONNECTOR


@dataclass
class Customer:
    """Where a customer has put things."""

    folder: Path
    profile: Path
    state: Path
    key_file: Path

    def command(self, *arguments: str, given: str = "") -> tuple[int, Any]:
        """Run a command with ``--json``; its exit code and answer."""
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "fleetprompt_edge",
                *arguments,
                "--json",
                "--profile",
                self.profile,
            ],
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment(),
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    def environment(self) -> dict[str, str]:
        """No keyring of the machine that the tests run on."""
        return {**os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}

    @contextmanager
    def running(self, *, debug: bool = True) -> Iterator[subprocess.Popen[bytes]]:
        """The connector at work, until the block ends."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "fleetprompt_edge",
                    "run",
                    "--profile",
                    self.profile,
                    *(["--debug"] if debug else []),
                ],
                stdout=log,
                stderr=log,
                env=self.environment(),
            )
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(15)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait(15)
                        raise

    @property
    def log(self) -> str:
        """What it logged."""
        return (self.folder / "log").read_text()


def customer(folder: Path, bridge: Dovecot, url: str, key: str, **options: Any) -> Customer:
    """Everything that a connector needs, with secrets in an encrypted file."""
    made = Customer(folder, folder / "profile.toml", folder / "state", folder / "keys" / "key")
    folder.mkdir(exist_ok=True)
    new_key(made.key_file)
    values = {
        "connector_id": CONNECTOR,
        "state_dir": str(made.state),
        "fleetprompt.base_url": url,
        "bridge.username": USER,
        "bridge.certificate_sha256": bridge.pin,
        "bridge.imap.port": bridge.port,
        "mailbox.poll_interval_seconds": 20,
        "health.heartbeat_interval_seconds": 10,
        "secrets.store": "file",
        "secrets.key_file": str(made.key_file),
        "limits.max_messages_per_minute": 10_000,
        **{name.replace("__", "."): value for name, value in options.items()},
    }
    made.profile.write_text(new_profile(values))
    made.profile.chmod(0o600)
    kept = FileVault(made.state, made.key_file)
    kept.put("bridge-password", PASSWORD)
    kept.put("api-key", key)
    return made


def until(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait until the check is true; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come to pass")
