"""The application in a real uvicorn process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from fleetprompt.settings import Settings
from tests.ports import free_port


@dataclass(frozen=True)
class Server:
    """A running server; ``log`` holds what it wrote."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def serving(
    settings: Settings,
    folder: Path,
    *,
    application: str = "fleetprompt_api.app:app",
    **environment: str,
) -> Iterator[Server]:
    """Serve until the block ends; ``application`` is ``module:name``."""
    port = free_port()
    assert settings.database_url is not None
    assert settings.master_key is not None
    given = {
        "FLEETPROMPT_STATE_DIR": str(settings.state_dir),
        "FLEETPROMPT_DATABASE_URL": settings.database_url.get_secret_value(),
        "FLEETPROMPT_MASTER_KEY": settings.master_key.get_secret_value(),
        "FLEETPROMPT_MASTER_KEY_SOURCE": "env",
        "FLEETPROMPT_API_PORT": str(port),
        "FLEETPROMPT_LOG_FORMAT": "json",
        **environment,
    }
    log = folder / f"server-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", application, "--no-access-log"),
                *("--app-dir", str(Path(__file__).parents[2])),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            env={**os.environ, **given},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(url, process, log)
        yield Server(url, process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/health/live", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(log.read_text())
