"""``fleetprompt-edge pair``: from a code to a connector that FleetPrompt sees; real platform and server."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleetprompt_edge.reading import load

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.serving import Server, serving
from tests.api.support import Keys, bearer
from tests.doubles.smtp import running_smtp
from tests.edge.dovecot import PASSWORD, USER, Dovecot

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running platform."""
    with serving(settings, tmp_path_factory.mktemp("platform")) as found:
        yield found


def _pair(folder: Path, url: str, code: str, bridge: Dovecot, smtp: int, pin: str) -> Any:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fleetprompt_edge", "pair", code, "--json", "--url", url),
            *("--username", USER, "--fingerprint", pin, "--imap-port", str(bridge.port)),
            *("--smtp-port", str(smtp), "--profile", str(folder / "profile.toml")),
            *("--key-file", str(folder / "keys" / "key")),
        ],
        input=PASSWORD + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            "XDG_STATE_HOME": str(folder / "states"),
        },
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert "fp_conn_" not in done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def _everything(folder: Path) -> bytes:
    return b"".join(one.read_bytes() for one in folder.rglob("*") if one.is_file())


async def test_a_code_becomes_a_connector_that_is_connected(
    served: Server,
    settings: Settings,
    database: Database,
    tenant: Tenant,
    bridge: Dovecot,
    tmp_path: Path,
) -> None:
    headers = bearer(await Keys(database, settings).user(tenant))
    async with httpx.AsyncClient(base_url=served.url, headers=headers, timeout=30) as client:
        made = (await client.post("/api/v1/connectors", json={"label": "Support"})).json()
        code = made["pairing"]["code"]
        with running_smtp() as smtp:
            wrong = ":".join(["AB"] * 32)
            given = (tmp_path, served.url, code, bridge, smtp.port)
            # Trap 27: another certificate ends it before the code is used.
            exit_code, said = await asyncio.to_thread(_pair, *given, wrong)
            assert exit_code == 2
            assert bridge.pin in said["error"]["message"]
            exit_code, said = await asyncio.to_thread(_pair, *given, bridge.pin)
            assert exit_code == 0, said
            again, refused = await asyncio.to_thread(_pair, *given, bridge.pin)
        connectors = (await client.get("/api/v1/connectors")).json()["items"]
    assert said["certificate_sha256"] == bridge.pin
    assert "INBOX" in said["folders"]
    profile, _ = load(tmp_path / "profile.toml")
    assert profile.connector_id == said["connector_id"]
    assert (profile.bridge.imap.port, profile.bridge.smtp.port) == (bridge.port, smtp.port)
    assert profile.bridge.smtp.tls == "starttls"
    assert [one["state"] for one in connectors] == ["connected"]
    assert (again, refused["error"]["code"]) == (2, "platform_key")
    stored = _everything(tmp_path)
    assert b"fp_conn_" not in stored
    assert PASSWORD.encode() not in stored
