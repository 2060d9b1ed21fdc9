"""``fleetprompt-edge pair``: from a code to a connector that FleetPrompt sees; real platform and server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleetprompt_edge.reading import load

from fleetprompt.db.engine import Database
from fleetprompt.settings import Settings
from fleetprompt.tenants.service import Tenant
from tests.api.serving import Server
from tests.api.support import Keys, bearer
from tests.doubles.smtp import running_smtp
from tests.edge.dovecot import PASSWORD, USER, Dovecot
from tests.edge.in_process import command, without_keyring

pytestmark = pytest.mark.slow


def _pair(folder: Path, url: str, code: str, bridge: Dovecot, smtp: int, *more: str) -> Any:
    given = [
        *("pair", code, "--url", url, "--username", USER),
        *("--imap-port", str(bridge.port), "--smtp-port", str(smtp), *more),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "states"))
        code_of_exit, told = command(folder / "profile.toml", *given, given=PASSWORD + "\n")
    assert "fp_conn_" not in json.dumps(told)
    return code_of_exit, told


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
            without_keyring()
            exit_code, said = await asyncio.to_thread(_pair, *given)
            assert (exit_code, said["error"]["code"]) == (2, "secret")
            assert "--key-file" in said["remedy"]
            keyed = (*given, "--key-file", str(tmp_path / "keys" / "key"), "--fingerprint")
            # Trap 27: another certificate ends it before the code is used.
            exit_code, said = await asyncio.to_thread(_pair, *keyed, wrong)
            assert exit_code == 2
            assert bridge.pin in said["error"]["message"]
            # Where nothing can be written the code is not used up either.
            (tmp_path / "file").touch()
            nowhere = (tmp_path / "file" / "folder", *keyed[1:])
            exit_code, said = await asyncio.to_thread(_pair, *nowhere, bridge.pin)
            assert exit_code == 2
            assert "cannot be written: Not a directory" in said["error"]["message"]
            exit_code, said = await asyncio.to_thread(_pair, *keyed, bridge.pin)
            assert exit_code == 0, said
            again, refused = await asyncio.to_thread(_pair, *keyed, bridge.pin)
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
